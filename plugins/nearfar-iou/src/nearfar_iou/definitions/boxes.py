"""Losses on the overlap of boxes, as their formulas read; lower case is the prediction, upper case its target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "alpha_iou",
    "bounded_iou",
    "ciou",
    "diou",
    "eiou",
    "focal_iou",
    "giou",
    "inner_iou",
    "iou",
    "mpdiou",
    "siou",
    "wiou",
]

Box = list[float]


@dataclass(frozen=True)
class Pair:
    """A predicted box and its target: two sides each, those of the hull, the way between the centres, and areas.

    ``fold`` is what inverted sides of the prediction cost, ``corners`` the squared distances of both pairs of corners.
    """

    iou: float
    empty: float  # (|C| − |U|) / |C|
    fold: float
    dx: float
    dy: float
    w: float
    h: float
    W: float
    H: float
    Cw: float
    Ch: float
    corners: float

    @property
    def centres(self) -> float:
        """ρ² / c²."""
        return over(self.dx**2 + self.dy**2, self.Cw**2 + self.Ch**2)


def pair(pred: Box, target: Box, ratio: float = 1.0) -> Pair:
    """Measure two boxes ``xyxy``, scaled about their centres; a side that is inverted is a point at its middle."""
    overlap = area = its_area = hull_area = 1.0
    fold = corners = 0.0
    measured = []
    for axis in (0, 1):
        (p1, p2), (t1, t2) = span(pred, axis, ratio), span(target, axis, ratio)
        depth = max(0.0, pred[axis] - pred[axis + 2])
        fold += over(depth, depth + max(0.0, target[axis + 2] - target[axis]))
        corners += (p1 - t1) ** 2 + (p2 - t2) ** 2
        hull = max(p2, t2) - min(p1, t1)
        measured.append((p2 - p1, t2 - t1, hull, (t1 + t2 - p1 - p2) / 2))
        if hull > 0:  # else both are the same point of this axis, and agree
            overlap *= max(0.0, min(p2, t2) - max(p1, t1))
            area, its_area, hull_area = area * (p2 - p1), its_area * (t2 - t1), hull_area * hull
    union = area + its_area - overlap
    (w, W, Cw, dx), (h, H, Ch, dy) = measured
    return Pair(over(overlap, union), 1 - union / hull_area, fold, dx, dy, w, h, W, H, Cw, Ch, corners)


def span(box: Box, axis: int, ratio: float) -> tuple[float, float]:
    low, high = box[axis], box[axis + 2]
    middle, half = (low + high) / 2, max(0.0, high - low) / 2 * ratio
    return middle - half, middle + half


def over(a: float, b: float) -> float:
    """a / b, and 0 where there is nothing to be compared."""
    return a / b if b else 0.0


def pairs(pred_boxes: Any, target_boxes: Any, box_format: str, ratio: float = 1.0) -> list[Pair]:
    rows = zip(pred_boxes.tolist(), target_boxes.tolist(), strict=True)
    return [pair(as_corners(p, box_format), as_corners(t, box_format), ratio) for p, t in rows]


def as_corners(box: Box, box_format: str) -> Box:
    a, b, c, d = box
    if box_format == "xywh":
        return [a, b, a + c, b + d]
    if box_format == "cxcywh":
        return [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
    return [-a, -b, c, d] if box_format == "ltrb" else box


def mean(values: Iterable[float]) -> float:
    each = list(values)
    return sum(each) / max(len(each), 1)


# ---- what is added to 1 − IoU


def aspect(g: Pair) -> float:
    """CIoU's v; a point has no aspect ratio."""
    if not (g.w or g.h) or not (g.W or g.H):
        return 0.0
    return 4 / math.pi**2 * (math.atan2(g.W, g.H) - math.atan2(g.w, g.h)) ** 2


def weighted_aspect(g: Pair, alpha_gate: float | None = None, **_: Any) -> float:
    v = aspect(g)
    is_shut = alpha_gate is not None and g.iou < alpha_gate
    return 0.0 if is_shut else over(v, 1 - g.iou + v) * v


def mismatch(a: float, b: float) -> float:
    return over(abs(a - b), max(a, b))


def scylla(g: Pair, theta: float = 4.0, **_: Any) -> float:
    """SIoU's (Δ + Ω) / 2."""
    sine = over(2 * abs(g.dx * g.dy), g.dx**2 + g.dy**2)
    delta = sum(1 - math.exp(-(2 - sine) * over(d, c) ** 2) for d, c in ((g.dx, g.Cw), (g.dy, g.Ch)))
    omega = sum(math.pow(1 - math.exp(-mismatch(a, b)), theta) for a, b in ((g.w, g.W), (g.h, g.H)))
    return (delta + omega) / 2


def diagonal_of_image(g: Pair, image_size: Any = 1.0, **_: Any) -> float:
    height, width = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
    return g.corners / float(height**2 + width**2)


def of_sides(g: Pair, **_: Any) -> float:
    return over(g.w - g.W, g.Cw) ** 2 + over(g.h - g.H, g.Ch) ** 2


#: Loss → what it adds, each for itself.
PENALTIES: Mapping[str, list[Callable[..., float]]] = {
    "iou": [],
    "giou": [lambda g, **_: g.empty],
    "diou": [lambda g, **_: g.centres],
    "ciou": [lambda g, **_: g.centres, weighted_aspect],
    "eiou": [lambda g, **_: g.centres, of_sides],
    "siou": [scylla],
    "mpdiou": [diagonal_of_image],
}


def penalized(loss: str, pred_boxes: Any, target_boxes: Any, box_format: str, **arguments: Any) -> float:
    each = pairs(pred_boxes, target_boxes, box_format)
    return mean(1 - g.iou + sum(p(g, **arguments) for p in PENALTIES[loss]) + g.fold for g in each)


# ---- the losses


def iou(pred_boxes: Any, target_boxes: Any, form: str, box_format: str) -> float:
    """1 − IoU, 1 − IoU², or −ln IoU, with the IoU not below 1e-6."""

    def cost(i: float) -> float:
        return {"linear": 1 - i, "square": 1 - i**2, "log": -math.log(max(i, 1e-6))}[form]

    return mean(cost(g.iou) + g.fold for g in pairs(pred_boxes, target_boxes, box_format))


def giou(pred_boxes: Any, target_boxes: Any, box_format: str) -> float:
    """1 − IoU and the empty part of the hull."""
    return penalized("giou", pred_boxes, target_boxes, box_format)


def diou(pred_boxes: Any, target_boxes: Any, box_format: str) -> float:
    """1 − IoU + ρ² / c²."""
    return penalized("diou", pred_boxes, target_boxes, box_format)


def ciou(pred_boxes: Any, target_boxes: Any, alpha_gate: float | None, box_format: str) -> float:
    """1 − IoU + ρ² / c² + αv; how steep v is taken to be does not change the value."""
    return penalized("ciou", pred_boxes, target_boxes, box_format, alpha_gate=alpha_gate)


def eiou(pred_boxes: Any, target_boxes: Any, box_format: str) -> float:
    """1 − IoU + ρ² / c² + (w − W)² / Cw² + (h − H)² / Ch²."""
    return penalized("eiou", pred_boxes, target_boxes, box_format)


def siou(pred_boxes: Any, target_boxes: Any, theta: float, box_format: str) -> float:
    """1 − IoU + (Δ + Ω) / 2."""
    return penalized("siou", pred_boxes, target_boxes, box_format, theta=theta)


def mpdiou(pred_boxes: Any, target_boxes: Any, image_size: Any, box_format: str) -> float:
    """1 − IoU + (d₁² + d₂²) / (w² + h²)."""
    return penalized("mpdiou", pred_boxes, target_boxes, box_format, image_size=image_size)


def wiou(
    pred_boxes: Any,
    target_boxes: Any,
    version: str,
    alpha: float,
    delta: float,
    running_mean: Any,
    box_format: str,
) -> float:
    """exp(ρ² / c²) (1 − IoU), in v3 times β / (δ α^(β − δ))."""

    def focus(g: Pair) -> float:
        beta = (1 - g.iou) / float(running_mean)
        return 1.0 if version == "v1" else beta / (delta * alpha ** (beta - delta))

    each = pairs(pred_boxes, target_boxes, box_format)
    return mean(focus(g) * math.exp(g.centres) * (1 - g.iou) + g.fold for g in each)


def bounded_iou(pred_boxes: Any, target_boxes: Any, beta: float, box_format: str) -> float:
    """Smooth L1 of how far the best IoU that each coordinate leaves possible is from 1."""

    def smooth(bound: float) -> float:
        return bound**2 / (2 * beta) if bound < beta else bound - beta / 2

    def bounds(g: Pair) -> list[float]:
        centres = [
            1 - max(0.0, over(side - 2 * abs(d), side + 2 * abs(d))) if d else 0.0
            for d, side in ((g.dx, g.W), (g.dy, g.H))
        ]
        return [*centres, mismatch(g.w, g.W), mismatch(g.h, g.H)]

    each = pairs(pred_boxes, target_boxes, box_format)
    return mean(sum(map(smooth, bounds(g))) + g.fold for g in each)


# ---- round another


def alpha_iou(pred_boxes: Any, target_boxes: Any, loss: Any, power: float) -> float:
    """1 − IoU^a, and each penalty to the same power."""
    name, arguments, box_format = asked(loss)
    each = pairs(pred_boxes, target_boxes, box_format)
    return mean(1 - g.iou**power + sum(p(g, **arguments) ** power for p in PENALTIES[name]) + g.fold for g in each)


def focal_iou(pred_boxes: Any, target_boxes: Any, loss: Any, gamma: float) -> float:
    """IoU^γ times the loss, of one that is 1 − IoU and penalties."""
    name, arguments, box_format = asked(loss)
    each = pairs(pred_boxes, target_boxes, box_format)
    return mean(g.iou**gamma * (1 - g.iou + sum(p(g, **arguments) for p in PENALTIES[name])) + g.fold for g in each)


def inner_iou(pred_boxes: Any, target_boxes: Any, loss: Any, ratio: float) -> float:
    """1 − the IoU of the boxes scaled about their centres, and the penalties of the boxes as they are."""
    name, arguments, box_format = asked(loss)
    inner = pairs(pred_boxes, target_boxes, box_format, ratio)
    each = zip(pairs(pred_boxes, target_boxes, box_format), inner, strict=True)
    return mean(1 - small.iou + sum(p(g, **arguments) for p in PENALTIES[name]) + g.fold for g, small in each)


def asked(loss: Any) -> tuple[str, dict[str, Any], str]:
    """The name of the loss that stands in another's argument, its arguments, and its format."""
    arguments = dict(loss.named)
    return loss.name.rpartition(".")[2], arguments, arguments.pop("box_format", "xyxy")
