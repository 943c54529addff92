"""The geometry every box loss shares: overlap, hull, centres, sides, and how slopes flow back from them.

A box is held by its *extents* ``(−x1, −y1, x2, y2)``: how far it reaches in each of the four directions. The
extents of an overlap are then the smaller, those of the hull (the smallest box round both) the larger of two boxes'
extents, and a side is the sum of two opposite extents. Everything is laid out with one box a column, so that all four
directions are one operation.

What is compared is measured in the hull's sides, axis by axis. IoU and its kin do not depend on the unit of an axis,
and in this one no area overflows or underflows, equal boxes have sides of exactly 1, and the hull's area is 1.

What is not a proper box:

- A side that is inverted (``x2 < x1`` by a depth d) is read as a side of length 0 at its midpoint. An inverted
  *predicted* side costs ``d / (d + t)`` on top of the loss, where t is the target's side: nothing at d = 0, less
  than 1 always, free of the unit, and with a gradient that turns the side round again.
- In an axis in which both boxes have no extent and lie at the same place, they agree: all sides count as 1 there,
  without a gradient. The losses of two boxes on one line are so those of their other axis.
- At a tie (a shared edge, boxes that touch) the gradient is the mean of those on either side, so that it is 0
  for equal boxes. A side of exactly 0 counts as half inverted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nearfar_iou.improper import Improper

__all__ = ["Pairs", "Slopes"]

#: A derivative by something of the prediction and by the same of the target; None where it is not asked for.
ByBox = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True)
class Slopes:
    """The derivatives of a loss by the measures of a pair; what is left out is 0.

    Attributes
    ----------
    iou
        (n,) or a number: by the IoU.
    union
        (n,) or a number: by the area of the union, in hulls.
    hull
        (2, n), or (n,) where both are the same: by the sides of the hull, in hulls.
    offset
        (2, n): by the way from the prediction's centre to the target's, in hulls.
    sides
        (2, n) each: by the sides of the prediction and of the target, in hulls.
    extents
        (4, n) each: by the extents of the prediction and of the target, in the unit of the boxes.
    """

    iou: Tensor | float = 0.0
    union: Tensor | float | None = None
    hull: Tensor | None = None
    offset: Tensor | None = None
    sides: ByBox | None = None
    extents: ByBox | None = None

    def __add__(self, other: Slopes) -> Slopes:
        """Of the sum of two losses."""
        sides, extents = self.sides or other.sides, self.extents or other.extents
        return Slopes(
            self.iou + other.iou,
            _sum(self.union, other.union),
            _sum(self.hull, other.hull),
            _sum(self.offset, other.offset),
            _sum_by_box(self.sides, other.sides) if self.sides and other.sides else sides,
            _sum_by_box(self.extents, other.extents) if self.extents and other.extents else extents,
        )

    def __mul__(self, weight: Tensor) -> Slopes:
        """Of a loss that is multiplied with ``weight`` (n,)."""
        return Slopes(
            self.iou * weight,
            None if self.union is None else self.union * weight,
            None if self.hull is None else self.hull * weight,
            None if self.offset is None else self.offset * weight,
            _weighted(self.sides, weight),
            _weighted(self.extents, weight),
        )


def _sum(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one + other


def _sum_by_box(one: ByBox, other: ByBox) -> ByBox:
    return one[0] + other[0], _sum(one[1], other[1])


def _weighted(slopes: ByBox | None, weight: Tensor) -> ByBox | None:
    if slopes is None:
        return None
    return slopes[0] * weight, None if slopes[1] is None else slopes[1] * weight


class Pairs:
    """n predicted boxes and their targets.

    Parameters
    ----------
    frame
        (4, 4, n): by extent, the predictions in column 1 and the targets in column 2; what is in columns 0 and 3 is
        overwritten.
    both
        Whether slopes are wanted by the targets too, and not by the predictions alone.
    have_extent
        Whether every side is greater than 0; False where one may be 0, but none is inverted. None to find out, and to
        repair what is inverted.

    Attributes
    ----------
    difference
        (4, n): the target's extents less the prediction's, in the unit of the boxes.
    hull
        (2, n): the hull's sides in the unit of the boxes; 1 in an axis without extent.
    iou, miss
        (n,): intersection over union, and 1 − IoU.
    union, hull_area
        (n,): the area of the union in hulls, above 0, and that of the hull, which is 1.
    fold
        (n,) what inverted predicted sides cost, or None where every box is proper.
    """

    def __init__(self, frame: Tensor, *, both: bool, have_extent: bool | None = None) -> None:
        self.both = both
        self._frame = frame
        self._improper: Improper | None = None
        sides = self._measure_sides()
        if have_extent is None:
            # On a GPU the question would stall the stream, so there the general case is computed always.
            have_extent = frame.device.type == "cpu" and sides[:, 1:3].amin().item() > 0
            if not have_extent:
                self._improper = Improper.repair(frame[:, 1:3], sides[:, 1:3])
                sides = self._measure_sides()
        self.fold = None if self._improper is None else self._improper.cost
        self.difference = self._target - self._pred
        overlap, _, _, self.hull = sides.unbind(1)
        self._meets = overlap.sign()  # 1 where the overlap's side is one, 0 at the brink, −1 where there is none
        overlap.clamp_min_(0)
        self._thick: Tensor | None = None  # (2, n): 0 in an axis without extent, else 1
        if not have_extent:
            self._fill(sides)
        self._sides = sides / sides[:, 3:]
        width, height = self._sides.unbind(0)
        overlap, pred, target, self.hull_area = (width * height).unbind(0)
        # A bound, not a summand: nothing is changed where the union is not 0.
        self.union = (pred + target).sub_(overlap).clamp_min_(torch.finfo(overlap.dtype).tiny)
        self.iou, self.miss = overlap / self.union, (self.union - overlap).div_(self.union)

    def _measure_sides(self) -> Tensor:
        """Fill in overlap and hull, and add up all sides: (2, 4, n), by axis and then by box."""
        overlap, self._pred, self._target, hull = self._frame.unbind(1)
        torch.minimum(self._pred, self._target, out=overlap)
        torch.maximum(self._pred, self._target, out=hull)
        low, high = self._frame.chunk(2)
        return low + high

    def _fill(self, sides: Tensor) -> None:
        """Give what has no extent in an axis sides of 1 there, in place."""
        # An overlap as thin as a box of no extent is not at the brink of being none: the box's side is.
        self._meets.masked_fill_((self._meets == 0) & (sides[:, 1:3] == 0).any(1), 1)
        flat = (self.hull == 0).to(sides.dtype)
        sides += flat[:, None]
        self._thick = 1 - flat

    def within(self, ratio: float) -> Pairs:
        """The pairs of the same boxes, each scaled by ``ratio`` about its centre."""
        made = torch.empty_like(self._frame)
        made[:, 1], made[:, 2] = _scaled(self._pred, ratio), _scaled(self._target, ratio)
        return Pairs(made, both=self.both, have_extent=self._thick is None)

    def slopes_within(self, inner: Pairs, slopes: Slopes, ratio: float) -> Slopes:
        """The slopes of a loss on ``inner``, the pairs :meth:`within` these, as slopes of these."""
        # What scales the extents is symmetric, so it carries derivatives back as well.
        pred, *target = (_scaled(grad, ratio) for grad in inner.gradients(slopes))
        return Slopes(extents=(pred, target[0] if target else None))

    # ---- what is measured

    @property
    def sides(self) -> Tensor:
        """(2, 2, n): the sides of the prediction and of the target, in hulls; by axis and then by box."""
        return self._sides[:, 1:3]

    @cached_property
    def shift(self) -> Tensor:
        """(2, n): the way from the prediction's centre to the target's, in the unit of the boxes."""
        low, high = self.difference.chunk(2)
        return (high - low).mul_(0.5)

    @cached_property
    def offset(self) -> Tensor:
        """(2, n): the way from the prediction's centre to the target's, in hulls."""
        return self.shift / self.hull

    @cached_property
    def gap(self) -> Tensor:
        """(2, n): the target's sides less the prediction's, in hulls."""
        low, high = self.difference.chunk(2)
        return (high + low).div_(self.hull)

    @cached_property
    def diagonal(self) -> Tensor:
        """(n,): the diagonal of the hull in the unit of the boxes; 1 where it is a point."""
        length = torch.hypot(*self._true_hull.unbind(0))
        return length if self._thick is None else length + (length == 0).to(length.dtype)

    @cached_property
    def slant(self) -> Tensor:
        """(2, n): the sides of the hull in its diagonals, so that their squares add up to 1."""
        return self._true_hull / self.diagonal

    @property
    def _true_hull(self) -> Tensor:
        return self.hull if self._thick is None else self.hull * self._thick

    # ---- and how it flows back

    def _by_areas(self, slopes: Slopes) -> tuple[Tensor, Tensor]:
        """Derivatives by the area of a box, alike for both, and by that of the overlap, the latter negative: (n,)."""
        # IoU = I / U and U = A + B − I.
        if isinstance(slopes.iou, Tensor):
            minus, per_union = -1.0, slopes.iou / self.union
        else:
            minus, per_union = -slopes.iou, self.union.reciprocal()
        by_box = self.iou * per_union
        if minus != 1:
            by_box *= minus
        if isinstance(slopes.union, Tensor):
            by_box += slopes.union
        elif slopes.union is not None:
            by_box.add_(self.hull_area, alpha=slopes.union)
        return by_box, torch.add(by_box, per_union, alpha=minus)

    def gradients(self, slopes: Slopes) -> list[Tensor]:
        """Derivatives by the extents: (4, n) of the predictions and, where both are wanted, of the targets."""
        by_box, by_overlap = self._by_areas(slopes)
        # With a side an area grows by the other side; the overlap's, at the brink of being none, by half of it.
        overlap, *boxes, _ = self._sides.flip(0).unbind(1)
        share = overlap * by_overlap
        share.addcmul_(share, self._meets)  # four times what one of the two extents has of it at a tie
        own = [(other * by_box).sub_(share, alpha=0.25) for other in (boxes if self.both else boxes[:1])]
        # An extent bounds the overlap where it is the smaller of the two, (1 + reach) / 2, else the hull,
        # (1 − reach) / 2; `own` is what does not depend on which, `share` is multiplied with ±reach.
        if slopes.hull is not None:
            own = [mine.add_(slopes.hull, alpha=0.5) for mine in own]
            share.add_(slopes.hull, alpha=2)
        if slopes.sides is not None:
            own = [mine if given is None else mine + given for mine, given in zip(own, slopes.sides, strict=False)]
        signed = self.difference.view(2, 2, -1).sign().mul_(share)
        if slopes.offset is not None:
            low, high = signed.unbind(0)
            low.sub_(slopes.offset, alpha=2)
            high.add_(slopes.offset, alpha=2)
        found = [torch.sub(own[0], signed, alpha=0.25)]
        if self.both:
            found.append(torch.add(own[1], signed, alpha=0.25))
        return [self._by_given(grad, slopes, index) for index, grad in enumerate(found)]

    def _by_given(self, grad: Tensor, slopes: Slopes, index: int) -> Tensor:
        """From derivatives by the extents in hulls, (2, 2, n), to those by the extents that were given, (4, n)."""
        grad /= self.hull
        if self._thick is not None:
            grad *= self._thick
        flat = grad.view(4, -1)
        given = None if slopes.extents is None else slopes.extents[index]
        if given is not None:
            flat += given
        if self._improper is not None:
            self._improper.pull_back(grad, index)
        return flat


def _scaled(extents: Tensor, ratio: float) -> Tensor:
    """The extents (4, n) of boxes scaled about their centres."""
    sides = extents[:2] + extents[2:]
    return extents - ((1 - ratio) / 2) * sides.repeat(2, 1)
