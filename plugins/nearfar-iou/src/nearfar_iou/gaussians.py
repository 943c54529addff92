"""Rotated boxes as normal distributions: what two of them have between them, and the way back to their coordinates.

A box of centre μ, sides w, h and angle θ stands for a normal distribution of mean μ whose axes are the box's:
Σ = k² R(θ) diag(w², h²) R(θ)ᵀ, with k = 1/2 or 1/√12. What is between two of them is taken in lengths of the longest
that there is, a side or the way from centre to centre along an axis, so that nothing depends on the unit; and with the
axes of the target named so that its longer side is compared with the prediction's: Σ is the same for (w, h, θ) and
(h, w, θ + π/2). The differences that formulas by matrices take of nearly equal numbers are then sums of terms that are
0 or greater, each exactly 0 for equal boxes.

No side is shorter than 1e-4 of that length: a distribution without width has no inverse. What is read so, inverted
sides too, costs depth / (depth + target's side) more, where the depth is how far a predicted side is short of that or
of the target's, whichever is less: a box without width gets a gradient that widens it, and one equal to its target,
whatever its sides, costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar_iou.boxes import check_rows

__all__ = ["GaussianSlopes", "Gaussians", "check_rotated_boxes", "opposed"]

#: The least side, in longest lengths of a pair: slopes, of which it is the inverse, then fit into float16.
LEAST = 1e-4


def check_rotated_boxes(pred_boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of boxes ``cxcywhr``, (n, 5) each, in one floating dtype; integers and half precision become float32.

    Raises
    ------
    InputError
        A shape, dtype or device does not fit.
    """
    return check_rows(pred_boxes, target_boxes, 5, "one box a row: centre, sides and angle in radians")


@dataclass(frozen=True, slots=True)
class GaussianSlopes:
    """Derivatives of a loss by the measures of :class:`Gaussians` of the same names.

    ``turn`` is by the squared sine of the angle between the axes; ``angles`` are what is left beside that, as the
    offset is looked at along the axes of a box.
    """

    offset: Tensor
    pred_sides: Tensor
    target_sides: Tensor
    turn: Tensor
    angles: tuple[Tensor | None, Tensor | None] = (None, None)


class Gaussians:
    """What is between predicted boxes and their targets, (5, n) each, in longest lengths of each pair.

    Parameters
    ----------
    pred, target
        (5, n): the boxes.
    charge
        Whether sides cost that are read as longer than they are.

    Attributes
    ----------
    unit
        (n,): that length, in the unit of the boxes.
    offset
        (2, n): the way from the target's centre to the prediction's.
    pred_sides, target_sides
        (2, n): those of one axis, and of the other.
    turn, rest
        (n,): the squared sine of the angle between the axes of a pair, and the squared cosine.
    cost
        (n,): what sides cost that are read as longer than they are; None where it is known that there are none.
    """

    def __init__(self, pred: Tensor, target: Tensor, *, charge: bool = True) -> None:
        offset = pred[:2] - target[:2]
        longest = torch.cat((pred[2:4], target[2:4], offset.abs())).amax(0)
        self.unit = unit = torch.where(longest > 0, longest, torch.ones_like(longest))
        self.offset = offset.div_(unit)
        delta = pred[4] - target[4]
        sine, cosine = delta.sin(), delta.cos()
        sides, target_sides = pred[2:4] / unit, target[2:4] / unit
        #: Where the target's axes are named the other way round.
        self._swapped = swapped = (sides[0] - sides[1]) * (target_sides[0] - target_sides[1]) < 0
        sine, cosine = torch.where(swapped, -cosine, sine), torch.where(swapped, sine, cosine)
        target_sides = torch.where(swapped, target_sides.flip(0), target_sides)
        self._delta = sine, cosine
        self._angle = target[4]
        self.turn, self.rest = sine.square(), cosine.square()
        self.pred_sides, self.target_sides = sides.clamp_min(LEAST), target_sides.clamp_min(LEAST)
        self._read = sides >= LEAST, target_sides >= LEAST
        self.cost: Tensor | None = None
        # On a GPU to ask would be to wait.
        if charge and (sides.device.type != "cpu" or not bool(self._read[0].all())):
            self._charge(sides, target_sides)

    def _charge(self, sides: Tensor, target_sides: Tensor) -> None:
        depth = (target_sides.clamp(0, LEAST) - sides).clamp_min_(0)
        total = depth + self.target_sides
        short = depth > 0
        self.cost = (depth / total).sum(0)
        self._by_pred = -(short * self.target_sides) / total.square()
        self._by_target = -depth / total.square()

    # ---- along the axes of a box

    def along_target(self) -> Tensor:
        """(2, n): the offset along the axes of the target."""
        sine, cosine = self._axes()
        return _turned(self.offset, sine, cosine)

    def along_pred(self, along_target: Tensor) -> Tensor:
        """(2, n): the offset along the axes of the prediction, from that along those of the target."""
        return _turned(along_target, *self._delta)

    def from_target(self, along_target: Tensor) -> Tensor:
        """(2, n): what is given along the axes of the target, along x and y."""
        sine, cosine = self._axes()
        return _turned(along_target, -sine, cosine)

    def from_pred(self, along_pred: Tensor) -> Tensor:
        """(2, n): what is given along the axes of the prediction, along those of the target."""
        sine, cosine = self._delta
        return _turned(along_pred, -sine, cosine)

    def _axes(self) -> tuple[Tensor, Tensor]:
        sine, cosine = self._angle.sin(), self._angle.cos()
        return torch.where(self._swapped, cosine, sine), torch.where(self._swapped, -sine, cosine)

    # ---- the way back

    def gradients(self, slopes: GaussianSlopes, *, for_target: bool) -> tuple[Tensor, Tensor | None]:
        """Derivatives by the coordinates of predictions and, where asked for, of targets: (5, n) each."""
        sine, cosine = self._delta
        turn = 2 * slopes.turn * sine * cosine
        centre = slopes.offset / self.unit
        by_pred, by_target = slopes.pred_sides * self._read[0], slopes.target_sides * self._read[1]
        if self.cost is not None:
            by_pred, by_target = by_pred + self._by_pred, by_target + self._by_target * self._read[1]
        first, second = slopes.angles
        pred_angle = turn if first is None else turn + first
        pred = torch.cat((centre, by_pred / self.unit, pred_angle[None]))
        if not for_target:
            return pred, None
        target_angle = -turn if second is None else second - turn
        by_target = torch.where(self._swapped, by_target.flip(0), by_target)
        return pred, torch.cat((-centre, by_target / self.unit, target_angle[None]))


def opposed(numbers: Tensor) -> Tensor:
    """(2, n): what one axis gains as the other loses it."""
    return torch.stack((numbers, -numbers))


def _turned(vectors: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    """Vectors (2, n) as seen from axes that are turned by an angle."""
    x, y = vectors
    return torch.stack((x * cosine + y * sine, y * cosine - x * sine))
