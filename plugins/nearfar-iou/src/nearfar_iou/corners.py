"""Every box of one set against every box of another: overlap and its kin, by formulas of corners.

These are for proper boxes whose areas neither overflow nor underflow, which :meth:`Corners.are_plain` tells: a product
of sides is then all that is needed, and the arithmetic is that of a textbook, in its order, so that what lies exactly
at a threshold does so here as elsewhere. :mod:`nearfar_iou.geometry` measures any pair of boxes, at several times the
cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Corners", "Formula", "ciou", "diou", "giou", "iou"]


class Corners(NamedTuple):
    """Boxes, and what formulas ask of each: (n,) all of them, or (n, 1) and (1, m) for tables.

    ``angle`` is the arctangent of width by height in quarters of a turn.
    """

    x1: Tensor
    y1: Tensor
    x2: Tensor
    y2: Tensor
    width: Tensor
    height: Tensor
    area: Tensor

    @classmethod
    def of(cls, boxes: Tensor) -> Corners:
        """Of boxes ``xyxy``, (4, n)."""
        x1, y1, x2, y2 = boxes.contiguous().unbind()
        width, height = x2 - x1, y2 - y1
        return cls(x1, y1, x2, y2, width, height, width * height)

    def rows(self, part: slice | Tensor = slice(None)) -> Corners:
        """Some of them, as the rows of a table."""
        return Corners(*(each[part, None] for each in self))

    def columns(self, part: slice | Tensor = slice(None)) -> Corners:
        """Some of them, as the columns of a table."""
        return Corners(*(each[None, part] for each in self))

    def take(self, places: Tensor) -> Corners:
        """Those at some places."""
        return Corners(*(each[places] for each in self))

    @property
    def angle(self) -> Tensor:
        return torch.atan2(self.width, self.height).mul_(2 / math.pi)

    def are_plain(self) -> bool:
        """Whether all have an area, and one that neither over- nor underflows even squared. Waits for a GPU."""
        if not len(self.x1):
            return True
        exponent = 8 if self.x1.dtype == torch.float32 else 70  # the fourth power stays within the range
        low, high = 10.0**-exponent, 10.0**exponent
        sides = torch.stack((self.width, self.height))
        corners = torch.stack((self.x1, self.y1, self.x2, self.y2))
        # Comparisons that are false of NaN.
        return bool((sides.amin() > low) & (corners.abs().amax() < high))


#: A table (n, m) of boxes in rows and boxes in columns.
Formula = Callable[[Corners, Corners], Tensor]


def _shared(a: Corners, b: Corners) -> tuple[Tensor, Tensor]:
    """The sides of the overlaps; how far boxes are apart, below 0, where they are."""
    width = torch.minimum(a.x2, b.x2).sub_(torch.maximum(a.x1, b.x1))
    height = torch.minimum(a.y2, b.y2).sub_(torch.maximum(a.y1, b.y1))
    return width, height


def _overlap(a: Corners, b: Corners, width: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """Overlap and union, in place of the sides of the overlap."""
    overlap = width.clamp_min_(0).mul_(height.clamp_min_(0))
    return overlap, (a.area + b.area).sub_(overlap)


def iou(a: Corners, b: Corners) -> Tensor:
    """Overlap over union."""
    overlap, union = _overlap(a, b, *_shared(a, b))
    return overlap.div_(union)


def giou(a: Corners, b: Corners) -> Tensor:
    """IoU less the part of the hull that neither box fills: IoU − (C − U) / C."""
    width, height = _shared(a, b)
    # What two boxes share and what is round both of them add up to both of them, along each axis.
    hull = (a.width + b.width).sub_(width).mul_((a.height + b.height).sub_(height))
    overlap, union = _overlap(a, b, width, height)
    return overlap.div_(union).add_(union.div_(hull)).sub_(1)


def diou(a: Corners, b: Corners) -> Tensor:
    """IoU less the squared distance of the centres, in diagonals of the hull: IoU − r² / c²."""
    width, height = _shared(a, b)
    diagonal = (a.width + b.width).sub_(width).square_()
    diagonal.add_((a.height + b.height).sub_(height).square_())
    apart = ((a.x1 + a.x2) - (b.x1 + b.x2)).square_().add_(((a.y1 + a.y2) - (b.y1 + b.y2)).square_())
    overlap, union = _overlap(a, b, width, height)
    return overlap.div_(union).sub_(apart.div_(diagonal), alpha=0.25)


def ciou(a: Corners, b: Corners) -> Tensor:
    """DIoU less α v, for a difference in aspect v = (4 / π²) (arctan w/h − arctan W/H)² and α = v / (1 − IoU + v)."""
    value = diou(a, b)
    v = (a.angle - b.angle).square_()
    missed = iou(a, b).neg_().add_(1).add_(v)
    # α v = v² / (1 − IoU + v), which is 0 for boxes that are equal.
    return value.sub_(v.square().div_(missed.clamp_min_(torch.finfo(v.dtype).tiny)))
