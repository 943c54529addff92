"""The geometry every box loss shares: formats, sides, overlap, hull, and how slopes flow back to coordinates.

A box is held by its *extents* ``(−x1, −y1, x2, y2)``: how far it reaches in each of the four directions. The
extents of an intersection are then the smaller, those of the hull (the smallest box round both) the larger of
two boxes' extents, and a side is the sum of two opposite extents. Everything is laid out with one box a column,
so that all four directions are one operation.

Sides are measured in the hull's sides, axis by axis. IoU and its kin do not depend on the unit of an axis, and in
this one no area overflows or underflows, equal boxes have sides of exactly 1, and the hull's area is 1.

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

import torch
from torch import Tensor

from nearfar.errors import InputError

__all__ = ["BOX_FORMATS", "Pairs", "Slopes", "check_boxes", "extents", "to_coordinates"]

#: xyxy: two corners; xywh: the lower corner and the sides; cxcywh: the centre and the sides.
BOX_FORMATS = ("xyxy", "xywh", "cxcywh")


def check_boxes(pred_boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of boxes, (n, 4) each, in one floating dtype; integers and half precision become float32.

    Raises
    ------
    InputError
        A shape, dtype or device does not fit.
    """
    for name, boxes in (("pred_boxes", pred_boxes), ("target_boxes", target_boxes)):
        if not isinstance(boxes, Tensor):
            raise InputError(f"{name} must be a tensor of boxes (n, 4); got {type(boxes).__name__}")
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise InputError(f"{name} must be of shape (n, 4), one box a row; got {tuple(boxes.shape)}")
        if boxes.is_complex() or boxes.dtype == torch.bool:
            raise InputError(f"{name} must hold real numbers; got {boxes.dtype}")
    if pred_boxes.shape != target_boxes.shape:
        raise InputError(
            f"pred_boxes {tuple(pred_boxes.shape)} and target_boxes {tuple(target_boxes.shape)} differ in number; "
            "box i is compared with target i, so match them first"
        )
    if pred_boxes.device != target_boxes.device:
        raise InputError(f"pred_boxes are on {pred_boxes.device}, target_boxes on {target_boxes.device}")
    double = torch.float64 in (pred_boxes.dtype, target_boxes.dtype)
    dtype = torch.float64 if double else torch.float32
    return pred_boxes.to(dtype), target_boxes.to(dtype)


def extents(boxes: Tensor, box_format: str, out: Tensor) -> None:
    """Write the extents of boxes (n, 4) into the columns of ``out`` (4, n)."""
    # Two copies: torch has a path of its own for copying a whole transpose, three times as slow for four rows.
    low, high = out[:2].copy_(boxes.t()[:2]), out[2:].copy_(boxes.t()[2:])
    if box_format == "cxcywh":
        centre = low.clone()
        half = high.mul_(0.5)
        torch.sub(half, centre, out=low)
        high.add_(centre)
        return
    if box_format == "xywh":
        high.add_(low)
    low.neg_()


def to_coordinates(grad: Tensor, box_format: str, out: Tensor) -> None:
    """Write derivatives by the extents, (4, n), as those by the coordinates of a format into ``out`` (n, 4)."""
    low, high = grad[:2], grad[2:]
    if box_format == "xyxy":
        low.neg_()
    elif box_format == "xywh":
        torch.sub(high, low, out=low)
    else:
        low.neg_().add_(high)  # by the centre: high − low; by the sides: (high + low) / 2 = high − (high − low) / 2
        high.sub_(low, alpha=0.5)
    out.t().copy_(grad)


@dataclass(frozen=True, slots=True)
class Slopes:
    """The derivatives of a loss by the measures of a pair.

    Attributes
    ----------
    areas
        (3, n): by the area of the overlap, of the prediction, of the target, each in hulls.
    hull
        (n,): by the area of the hull, which is 1; None when the loss does not depend on it.
    """

    areas: Tensor
    hull: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Pairs:
    """n predicted boxes and their targets, measured in the sides of their hulls.

    Attributes
    ----------
    sides
        (3, 2, n): the sides of the overlap, of the prediction and of the target; by axis.
    hull
        (2, n): the hull's sides, in the unit of the boxes; 1 in an axis without extent.
    fold
        (n,) what inverted predicted sides cost, or None where every box is proper.
    """

    sides: Tensor
    hull: Tensor
    fold: Tensor | None
    _reach: Tensor  # (2, 2, n): the sign of target − prediction, by extent
    _meets: Tensor  # (2, n): sign of the overlap's sides before they are clamped
    _scale: Tensor  # (2, n): hulls per unit, 0 in an axis without extent
    _improper: _Improper | None

    @classmethod
    def of(cls, boxes: Tensor) -> Pairs:
        """Measure the extents (2, 4, n) of predictions and targets."""
        sides = boxes.new_empty(3, 2, boxes.shape[2])
        torch.add(boxes[:, :2], boxes[:, 2:], out=sides[1:])
        improper = None
        # On a GPU the question would stall the stream, so there the general case is computed always.
        if boxes.device.type != "cpu" or not bool(sides[1:].amin() > 0):
            boxes, improper = _Improper.repair(boxes, sides[1:])
        inner, outer = torch.minimum(boxes[0], boxes[1]), torch.maximum(boxes[0], boxes[1])
        torch.add(inner[:2], inner[2:], out=sides[0])
        hull = outer[:2] + outer[2:]
        meets = sides[0].sign()
        sides[0].clamp_min_(0)
        if improper is None:
            scale = hull.reciprocal()
        else:
            # An overlap as thin as a box of no extent is not at the brink of being none: the box's side is.
            meets.masked_fill_((meets == 0) & (sides[1:] == 0).any(0), 1)
            flat = (hull == 0).to(hull.dtype)
            hull += flat
            sides += flat
            scale = (1 - flat) / hull
        sides /= hull
        fold = None if improper is None else improper.cost.sum(0)
        reach = (boxes[1] - boxes[0]).sign_().view(2, 2, -1)
        return cls(sides, hull, fold, reach, meets, scale, improper)

    def areas(self) -> Tensor:
        """(3, n): the area of the overlap, of the prediction and of the target, each in hulls."""
        return self.sides[:, 0] * self.sides[:, 1]

    def iou_and_union(self) -> tuple[Tensor, Tensor]:
        """(n,) intersection over union, and (n,) the area of the union in hulls, kept above 0."""
        overlap, pred, target = self.areas()
        # A bound, not a summand: nothing is changed where the union is not 0.
        union = (pred + target).sub_(overlap).clamp_min_(torch.finfo(overlap.dtype).tiny)
        return overlap / union, union

    def gradients(self, slopes: Slopes) -> tuple[Tensor, Tensor]:
        """Derivatives by the extents of the predictions and by those of the targets: (4, n) each."""
        # By a side: the slope by the area, times the other side. By an overlap's that is none: nothing.
        by_side = torch.empty_like(self.sides)
        torch.mul(slopes.areas, self.sides[:, 1], out=by_side[:, 0])
        torch.mul(slopes.areas, self.sides[:, 0], out=by_side[:, 1])
        share = by_side[0].mul_(0.25)
        share.addcmul_(share, self._meets)  # 1/2 · (1 + sign) / 2
        # An extent bounds the overlap where it is the smaller of the two, (1 + reach) / 2, else the hull,
        # (1 − reach) / 2; `own` gathers what does not depend on which, `share` what is multiplied with ±reach.
        own = by_side[1:].add_(share)
        if slopes.hull is not None:
            half = slopes.hull * 0.5
            own += half
            share -= half
        own *= self._scale
        share *= self._scale
        signed = share * self._reach
        pred, target = own[0] + signed, own[1] - signed
        if self._improper is not None:
            self._improper.pull_back(pred, target)
        return pred.flatten(0, 1), target.flatten(0, 1)


@dataclass(frozen=True, slots=True)
class _Improper:
    """What is kept of boxes of which some are inverted or have no area."""

    cost: Tensor  # (2, n): by axis, d / (d + t)
    inverted: Tensor  # (2, 2, n): 1 where a side is inverted, 1/2 where it is 0
    slope: Tensor  # (2, n): derivative of the cost by the predicted side
    slope_target: Tensor  # (2, n): … and by the target's

    @classmethod
    def repair(cls, boxes: Tensor, sides: Tensor) -> tuple[Tensor, _Improper]:
        """Draw inverted sides together at their midpoint, and clamp ``sides`` (2, 2, n) in place."""
        inverted = 0.5 - 0.5 * sides.sign()
        depth, target = (-sides[0]).clamp_min(0), sides[1].clamp_min(0)
        low, high = boxes[:, :2], boxes[:, 2:]
        middle = (high - low) * 0.5
        proper = sides >= 0
        boxes = torch.cat((torch.where(proper, low, -middle), torch.where(proper, high, middle)), 1)
        sides.clamp_min_(0)
        total = depth + target
        total += (total == 0).to(total.dtype)
        cost = depth / total
        slope = -inverted[0] * (target / total / total)
        return boxes, cls(cost, inverted, slope, (inverted[1] - 1) * (cost / total))

    def pull_back(self, pred: Tensor, target: Tensor) -> None:
        """From derivatives by the repaired extents, (2, 2, n) each, to those by the given ones, in place."""
        for grad, inverted, slope in zip((pred, target), self.inverted, (self.slope, self.slope_target), strict=True):
            grad += slope - 0.5 * inverted * grad.sum(0)
