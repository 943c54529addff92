r"""The directions that the figure of "Distance-IoU Loss" was made with, which are not the gradients of its losses.

Derived anew from what the authors' simulation does, as formulas. With low and high ends l, r of a side w about a centre
x, capitals for the target, signed overlaps :math:`o = \min(r, R) - \max(l, L)` and hulls :math:`c = \max(r, R) -
\min(l, L)`, by axis:

a. What goes along a side is the derivative by its high end less that by its low end: twice that by the side.
b. GIoU takes the product of the *signed* overlaps for the intersection. Of boxes that are apart in one axis alone it is
   negative, and minus the gap between them: the gap counts as filled, the union is about as large as the hull, and next
   to nothing draws the boxes over the gap.
c. DIoU's and CIoU's penalty :math:`\rho^2 / (c_x^2 + c_y^2)` is differentiated as if each side of the hull depended on
   what the other does, with the sign of the hull's part reversed for the centre, and with −1 in place of 1 for a side
   that encloses the target's. This pulls several times as hard as the gradient where boxes are apart.
d. CIoU leaves out the factor :math:`1 / (w^2 + h^2)` of its aspect ratio's derivative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PUBLISHED", "direction"]

#: The losses that the paper compares.
PUBLISHED = ("iou", "giou", "diou", "ciou")


@dataclass(frozen=True, slots=True)
class _Measures:
    """n pairs by axis, (2, n) each; ``by_centre`` and ``by_side`` are derivatives, the latter doubled: quirk a."""

    away: Tensor  # the target's centre less the prediction's
    side: Tensor
    target_side: Tensor
    overlap: Tensor  # signed
    overlap_by_centre: Tensor
    overlap_by_side: Tensor
    hull: Tensor
    hull_by_centre: Tensor
    hull_by_side: Tensor

    @classmethod
    def of(cls, pred: Tensor, target: Tensor) -> _Measures:
        centre, side = pred.chunk(2)
        its_centre, its_side = target.chunk(2)
        low, high = centre - side / 2, centre + side / 2
        its_low, its_high = its_centre - its_side / 2, its_centre + its_side / 2
        # At a tie neither end counts.
        inner_low, inner_high = (low > its_low).to(pred.dtype), (high < its_high).to(pred.dtype)
        outer_low, outer_high = (low < its_low).to(pred.dtype), (high > its_high).to(pred.dtype)
        return cls(
            away=its_centre - centre,
            side=side,
            target_side=its_side,
            overlap=torch.minimum(high, its_high) - torch.maximum(low, its_low),
            overlap_by_centre=inner_high - inner_low,
            overlap_by_side=inner_high + inner_low,
            hull=torch.maximum(high, its_high) - torch.minimum(low, its_low),
            hull_by_centre=outer_high - outer_low,
            hull_by_side=outer_high + outer_low,
        )

    @property
    def meets(self) -> Tensor:
        return (self.overlap > 0).all(0)


def direction(loss: str, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where the published simulation sends boxes (4, n), (x, y, w, h): their IoU (n,) and the direction (4, n).

    Parameters
    ----------
    loss
        One of :data:`PUBLISHED`.
    pred, target
        (4, n) float64, the centre first.
    """
    m = _Measures.of(pred, target)
    overlap = m.overlap.prod(0)  # quirk b where the boxes do not meet
    union = m.side.prod(0) + m.target_side.prod(0) - overlap
    overlap_by = torch.cat([m.overlap.flip(0) * m.overlap_by_centre, m.overlap.flip(0) * m.overlap_by_side])
    union_by = torch.cat([torch.zeros_like(m.side), 2 * m.side.flip(0)]) - overlap_by
    iou = torch.where(m.meets, overlap / union, 0)
    found = torch.where(m.meets, (union * overlap_by - overlap * union_by) / union.square(), 0)
    if loss == "giou":
        return iou, found + _by_hull_area(m, union, union_by)
    if loss in ("diou", "ciou"):
        found = found + _by_distance(m)
    if loss == "ciou":
        found[2:] += _by_aspect(m, iou)
    return iou, found


def _by_hull_area(m: _Measures, union: Tensor, union_by: Tensor) -> Tensor:
    """Of |U| / |C|."""
    area = m.hull.prod(0)
    area_by = torch.cat([m.hull.flip(0) * m.hull_by_centre, m.hull.flip(0) * m.hull_by_side])
    return (area * union_by - union * area_by) / area.square()


def _by_distance(m: _Measures) -> Tensor:
    """Quirk c."""
    squares = m.hull.square().sum(0)
    away = m.away.square().sum(0)
    both = m.hull.sum(0)
    by_centre = (2 * m.away * squares - 2 * both * m.hull_by_centre * away) / squares.square()
    half = m.hull_by_side / 2
    own = torch.where(half == 1, -1, half)
    by_side = 2 * (m.hull * own + m.hull.flip(0) * half) * away / squares.square()
    return torch.cat([by_centre, by_side])


def _by_aspect(m: _Measures, iou: Tensor) -> Tensor:
    """Quirk d."""
    turn = torch.atan(m.target_side[0] / m.target_side[1]) - torch.atan(m.side[0] / m.side[1])
    v = 4 / math.pi**2 * turn.square()
    alpha = v / (1 - iou + v + 1e-7)
    across = torch.stack([m.side[1], -m.side[0]])
    return alpha * 8 / math.pi**2 * turn * across
