"""How far the sides of two boxes are from each other, in the larger: the shape term of SIoU and of bounded IoU."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar_iou.geometry import Pairs

__all__ = ["mismatch", "mismatch_slopes"]


def mismatch(pairs: Pairs) -> Tensor:
    r"""(2, n): :math:`|w - W| / \max(w, W)` by axis, in 0..1; 0 where neither has an extent."""
    return pairs.gap.abs().div_(_larger(pairs))


def mismatch_slopes(pairs: Pairs, values: Tensor) -> tuple[Tensor, Tensor]:
    """(2, n) each: the derivatives of the mismatches by the sides of the prediction and of the target, in hulls."""
    # Where w > W it is 1 − W/w, with slopes W/w² and −1/w; where w < W the other way round; at a tie their mean is 0.
    sign, larger = -pairs.gap.sign(), _larger(pairs)
    by_pred = (sign - 0.5 * (1 + sign) * values) / larger
    by_target = (-sign - 0.5 * (1 - sign) * values) / larger
    return by_pred, by_target


def _larger(pairs: Pairs) -> Tensor:
    sides = pairs.sides
    return sides.amax(1).clamp_min_(torch.finfo(sides.dtype).tiny)
