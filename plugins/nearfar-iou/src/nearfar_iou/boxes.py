"""Boxes as they are given: what a tensor of them must be, and the formats they are written in."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import InputError

__all__ = [
    "BOX_FORMATS",
    "check_boxes",
    "check_groups",
    "check_normalizer",
    "check_rows",
    "check_weights",
    "frame",
    "to_coordinates",
]

#: xyxy: two corners; xywh: the lower corner and the sides; cxcywh: the centre and the sides; ltrb: how far the box
#: reaches to the left, the top, the right and the bottom of a point, which a prediction shares with its target.
BOX_FORMATS = ("xyxy", "xywh", "cxcywh", "ltrb")


def check_boxes(pred_boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of boxes, (n, 4) each, in one floating dtype; integers and half precision become float32.

    Raises
    ------
    InputError
        A shape, dtype or device does not fit.
    """
    return check_rows(pred_boxes, target_boxes, 4, "one box a row")


def check_rows(pred_boxes: Tensor, target_boxes: Tensor, width: int, row: str) -> tuple[Tensor, Tensor]:
    """The same of boxes (n, width), of which ``row`` says what a row is."""
    for name, boxes in (("pred_boxes", pred_boxes), ("target_boxes", target_boxes)):
        if not isinstance(boxes, Tensor):
            raise InputError(f"{name} must be a tensor of boxes (n, {width}); got {type(boxes).__name__}")
        shape = boxes.shape
        if len(shape) != 2 or shape[1] != width:
            raise InputError(f"{name} must be of shape (n, {width}), {row}; got {tuple(shape)}")
        if not boxes.is_floating_point() and (boxes.is_complex() or boxes.dtype == torch.bool):
            raise InputError(f"{name} must hold real numbers; got {boxes.dtype}")
    if pred_boxes.shape != target_boxes.shape:
        raise InputError(
            f"pred_boxes {tuple(pred_boxes.shape)} and target_boxes {tuple(target_boxes.shape)} differ in number; "
            "box i is compared with target i, so match them first"
        )
    if pred_boxes.device != target_boxes.device:
        raise InputError(f"pred_boxes are on {pred_boxes.device}, target_boxes on {target_boxes.device}")
    if pred_boxes.dtype == target_boxes.dtype == torch.float32:
        return pred_boxes, target_boxes
    double = torch.float64 in (pred_boxes.dtype, target_boxes.dtype)
    dtype = torch.float64 if double else torch.float32
    return pred_boxes.to(dtype), target_boxes.to(dtype)


def check_weights(weights: Tensor, boxes: Tensor) -> Tensor:
    """A weight for each of boxes (n, 4), in their dtype: (n,).

    Raises
    ------
    InputError
        A shape, dtype or device does not fit.
    """
    if not isinstance(weights, Tensor) or weights.is_complex():
        raise InputError("box_weights must be a tensor of real numbers (n,), one for each box")
    if weights.shape != boxes.shape[:1]:
        raise InputError(f"box_weights {tuple(weights.shape)} must be ({len(boxes)},), one for each box")
    if weights.device != boxes.device:
        raise InputError(f"box_weights are on {weights.device}, the boxes on {boxes.device}")
    return weights.to(boxes.dtype)


def check_groups(groups: Tensor, elements: Tensor, name: str) -> Tensor:
    """A group for each of n elements: (n,) integers.

    Raises
    ------
    InputError
        A shape, dtype or device does not fit.
    """
    if not isinstance(groups, Tensor) or groups.is_floating_point() or groups.is_complex():
        raise InputError(f"{name} must be a tensor of integers (n,), one for each element")
    if groups.shape != elements.shape[:1]:
        raise InputError(f"{name} {tuple(groups.shape)} must be ({len(elements)},), one for each element")
    if groups.device != elements.device:
        raise InputError(f"{name} are on {groups.device}, the elements on {elements.device}")
    return groups


def check_normalizer(normalizer: Tensor | float) -> Tensor | float:
    """What a mean divides by: a number of at least 0, or a 0-d tensor.

    Raises
    ------
    InputError
        It is neither.
    """
    if isinstance(normalizer, Tensor):
        if normalizer.ndim or normalizer.is_complex():
            raise InputError(
                f"box_normalizer must be one real number; got {normalizer.dtype} {tuple(normalizer.shape)}"
            )
        return normalizer.detach()
    if isinstance(normalizer, bool) or not isinstance(normalizer, int | float) or not 0 <= normalizer < float("inf"):
        raise InputError(f"box_normalizer must be a finite number of at least 0, or a 0-d tensor; got {normalizer!r}")
    return normalizer


def frame(pred: Tensor, target: Tensor, box_format: str) -> Tensor:
    """The extents of predictions and targets, (n, 4) each, in a frame (4, 4, n) for :class:`geometry.Pairs`.

    The frame goes by extent, then by box: the predictions are in column 1, the targets in column 2, and the others are
    left for what the two have between them. A box goes along the last axis, so that every operation is on adjacent
    numbers.
    """
    made = pred.new_empty(4, 4, len(pred))
    torch.stack((pred.t(), target.t()), 1, out=made[:, 1:3])
    if box_format == "ltrb":
        return made
    low = made[:2, 1:3]
    if box_format == "xyxy":
        low.neg_()
        return made
    high = made[2:, 1:3]
    if box_format == "xywh":
        high += low
        low.neg_()
        return made
    centre = low.clone()
    torch.sub(high.mul_(0.5), centre, out=low)
    high += centre
    return made


def to_coordinates(grad: Tensor, box_format: str) -> Tensor:
    """Derivatives by the extents, (4, n), turned in place into those by the coordinates of a format."""
    if box_format == "ltrb":
        return grad
    low = grad[:2]
    if box_format == "xyxy":
        low.neg_()
        return grad
    high = grad[2:]
    if box_format == "xywh":
        torch.sub(high, low, out=low)
    else:
        low.neg_().add_(high)  # by the centre: high − low; by the sides: (high + low) / 2 = high − (high − low) / 2
        high.sub_(low, alpha=0.5)
    return grad
