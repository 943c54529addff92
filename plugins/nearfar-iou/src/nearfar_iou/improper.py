"""Boxes that are none: sides inverted or of no length, how they are read, and how they are turned round again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Improper"]


@dataclass(frozen=True, slots=True)
class Improper:
    """What is kept of pairs of boxes of which some are inverted or have no area.

    Attributes
    ----------
    cost
        (n,): what inverted predicted sides cost, d / (d + t) each.
    """

    cost: Tensor
    _inverted: Tensor  # (2, 2, n): by axis and box, 1 where a side is inverted, 1/2 where it is 0
    _slopes: tuple[Tensor, Tensor]  # (2, n) each: derivatives of the cost by the predicted side and by the target's

    @classmethod
    def repair(cls, boxes: Tensor, sides: Tensor) -> Improper:
        """Draw inverted sides together at their midpoint, in place.

        Of boxes (4, 2, n), by extent and then by box, whose sides are (2, 2, n).
        """
        inverted = 0.5 - 0.5 * sides.sign()
        depth, target = (-sides[:, 0]).clamp_min_(0), sides[:, 1].clamp_min(0)
        low, high = boxes[:2], boxes[2:]
        middle = (high - low) * 0.5
        proper = sides >= 0
        low.copy_(torch.where(proper, low, -middle))
        high.copy_(torch.where(proper, high, middle))
        total = depth + target
        total += (total == 0).to(total.dtype)
        cost = depth / total
        by_pred, by_target = -inverted[:, 0] * (target / total / total), (inverted[:, 1] - 1) * (cost / total)
        return cls(cost.sum(0), inverted, (by_pred, by_target))

    def pull_back(self, grad: Tensor, index: int) -> None:
        """From derivatives by the repaired extents, (2, 2, n), to those by the given ones, in place.

        Of the predictions, ``index`` 0, or of the targets, 1.
        """
        grad += self._slopes[index] - 0.5 * self._inverted[:, index] * grad.sum(0)
