"""The losses: what each makes of a pair, as its ``measure`` or ``penalties`` has it in the module of its name.

A formula is called as ``formula(pair, real, numbers)``, with three numbers that are its parameters. One of
:data:`PENALTIES` returns what is added to 1 − IoU and the slopes of that, twice; one of :data:`WHOLE` the loss and its
slopes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nearfar_iou.compiled.pair import Along, Slopes
from nearfar_iou.compiled.scalars import arctan, floored, scalar, sign

__all__ = ["PENALTIES", "WHOLE", "added", "weighted"]

TWO_OVER_PI = 2 / np.pi


@scalar
def _both(a: Any, b: Any) -> Any:
    return Along(
        a.hull + b.hull, a.offset + b.offset, a.pred + b.pred, a.target + b.target, a.low + b.low, a.high + b.high
    )


@scalar
def added(one: Any, other: Any) -> Any:
    """The slopes of a sum."""
    return Slopes(one.iou + other.iou, one.union + other.union, _both(one.x, other.x), _both(one.y, other.y))


@scalar
def weighted(by: Any, w: Any) -> Any:
    """The slopes of what is multiplied with a number."""
    x, y = by.x, by.y
    return Slopes(
        by.iou * w,
        by.union * w,
        Along(x.hull * w, x.offset * w, x.pred * w, x.target * w, x.low * w, x.high * w),
        Along(y.hull * w, y.offset * w, y.pred * w, y.target * w, y.low * w, y.high * w),
    )


@scalar
def nothing(real: Any) -> Any:
    """No penalty."""
    zero = real(0)
    along = Along(zero, zero, zero, zero, zero, zero)
    return zero, Slopes(zero, zero, along, along)


@scalar
def spans(pair: Any, real: Any) -> Any:
    """The diagonal of the hull, its sides in diagonals, and the way between the centres in diagonals, by axis."""
    wide, high = pair.x.hull * pair.x.thick, pair.y.hull * pair.y.thick
    # As hypot has it: squares of the sides themselves could be too large or too small to be numbers.
    long, short = max(wide, high), min(wide, high)
    long = real(1) if long == real(0) else long
    share = short / long
    diagonal = long * np.sqrt(real(1) + share * share)
    half = real(0.5)
    away_x, away_y = (pair.x.high - pair.x.low) * half / diagonal, (pair.y.high - pair.y.low) * half / diagonal
    return diagonal, wide / diagonal, high / diagonal, away_x, away_y


@scalar
def _iou(pair: Any, real: Any, numbers: Any) -> Any:
    return nothing(real), nothing(real)


@scalar
def _giou(pair: Any, real: Any, numbers: Any) -> Any:
    zero = real(0)
    each = Along(pair.union, zero, zero, zero, zero, zero)
    return (floored(real(1) - pair.union, zero), Slopes(zero, real(-1), each, each)), nothing(real)


@scalar
def _distance(pair: Any, real: Any) -> Any:
    zero = real(0)
    _, wide, high, away_x, away_y = spans(pair, real)
    penalty = away_x * away_x + away_y * away_y
    twice_x, twice_y = wide + wide, high + high
    x = Along(-(twice_x * wide * penalty), away_x * twice_x, zero, zero, zero, zero)
    y = Along(-(twice_y * high * penalty), away_y * twice_y, zero, zero, zero, zero)
    return penalty, Slopes(zero, zero, x, y)


@scalar
def _diou(pair: Any, real: Any, numbers: Any) -> Any:
    return _distance(pair, real), nothing(real)


@scalar
def _ciou(pair: Any, real: Any, numbers: Any) -> Any:
    """Numbers: the gate of α, and whether w² + h² is left out of the gradient, 1 or 0."""
    zero = real(0)
    diagonal, wide, high, _, _ = spans(pair, real)
    w, h, W, H = pair.x.pred * wide, pair.y.pred * high, pair.x.target * wide, pair.y.target * high
    squares = floored(w * w + h * h, pair.tiny)
    angle = arctan(W * h - H * w, floored(W * w + H * h, pair.tiny), real) * real(TWO_OVER_PI)
    v = angle * angle
    alpha = v / floored(pair.miss + v, pair.tiny)
    alpha = alpha if pair.iou >= real(numbers[0]) else zero
    by_angle = alpha * angle * real(2 * TWO_OVER_PI)
    by_angle = by_angle * (squares * (diagonal * diagonal)) if real(numbers[1]) > zero else by_angle
    by_pred, by_target = by_angle / squares, by_angle / floored(W * W + H * H, pair.tiny)
    x = Along(zero, zero, -(h * wide * by_pred), H * wide * by_target, zero, zero)
    y = Along(zero, zero, w * high * by_pred, -(W * high * by_target), zero, zero)
    return _distance(pair, real), (alpha * v, Slopes(zero, zero, x, y))


@scalar
def _eiou(pair: Any, real: Any, numbers: Any) -> Any:
    zero, two = real(0), real(2)
    gap_x, gap_y = (pair.x.high + pair.x.low) / pair.x.hull, (pair.y.high + pair.y.low) / pair.y.hull
    squared_x, squared_y = gap_x * gap_x, gap_y * gap_y
    x = Along(-two * squared_x, zero, -two * gap_x, two * gap_x, zero, zero)
    y = Along(-two * squared_y, zero, -two * gap_y, two * gap_y, zero, zero)
    return _distance(pair, real), (squared_x + squared_y, Slopes(zero, zero, x, y))


@scalar
def _mismatch(axis: Any, tiny: Any, real: Any) -> Any:
    """|w − W| / max(w, W), and its slopes by w and by W."""
    one, half = real(1), real(0.5)
    gap = (axis.high + axis.low) / axis.hull
    larger = floored(max(axis.pred, axis.target), tiny)
    value = abs(gap) / larger
    side = -sign(gap, real)
    return value, (side - half * (one + side) * value) / larger, (-side - half * (one - side) * value) / larger


@scalar
def _shape(axis: Any, theta: Any, tiny: Any, real: Any) -> Any:
    """Half of SIoU's Ω along one axis, and its slopes by both sides."""
    omega, by_pred, by_target = _mismatch(axis, tiny, real)
    half, one = real(0.5), real(1)
    share = -np.expm1(-omega)
    steep = half * theta * share ** (theta - one) * (one - share)
    return half * share**theta, steep * by_pred, steep * by_target


@scalar
def _siou(pair: Any, real: Any, numbers: Any) -> Any:
    """Numbers: θ."""
    zero, half, two = real(0), real(0.5), real(2)
    theta = real(numbers[0])
    _, wide, high, away_x, away_y = spans(pair, real)
    squared = floored(away_x * away_x + away_y * away_y, pair.tiny)
    size_x, size_y = abs(away_x), abs(away_y)
    angle = two * abs(away_x * away_y) / squared
    offset_x = (pair.x.high - pair.x.low) * half / pair.x.hull
    offset_y = (pair.y.high - pair.y.low) * half / pair.y.hull
    rho_x, rho_y = offset_x * offset_x, offset_y * offset_y
    exponent_x, exponent_y = (angle - two) * rho_x, (angle - two) * rho_y
    steep_x, steep_y = -np.exp(exponent_x), -np.exp(exponent_y)
    by_angle = steep_x * rho_x + steep_y * rho_y
    by_rho_x, by_rho_y = steep_x * (angle - two), steep_y * (angle - two)
    way_x, way_y = sign(away_x, real), sign(away_y, real)
    turn_x = two * (size_y * way_x - angle * away_x) * (wide / squared)
    turn_y = two * (size_x * way_y - angle * away_y) * (high / squared)
    shape_x, pred_x, target_x = _shape(pair.x, theta, pair.tiny, real)
    shape_y, pred_y, target_y = _shape(pair.y, theta, pair.tiny, real)
    value = half * (-np.expm1(exponent_x) - np.expm1(exponent_y)) + (shape_x + shape_y)
    x = Along(-by_rho_x * rho_x, by_rho_x * offset_x + half * by_angle * turn_x, pred_x, target_x, zero, zero)
    y = Along(-by_rho_y * rho_y, by_rho_y * offset_y + half * by_angle * turn_y, pred_y, target_y, zero, zero)
    return (value, Slopes(zero, zero, x, y)), nothing(real)


@scalar
def _mpdiou(pair: Any, real: Any, numbers: Any) -> Any:
    """Numbers: the squared diagonal of the image."""
    zero, two, whole = real(0), real(2), real(numbers[0])
    x, y = pair.x, pair.y
    low_x, low_y, high_x, high_y = x.low / whole, y.low / whole, x.high / whole, y.high / whole
    value = x.low * low_x + y.low * low_y + x.high * high_x + y.high * high_y
    by_x = Along(zero, zero, zero, zero, two * low_x, two * high_x)
    by_y = Along(zero, zero, zero, zero, two * low_y, two * high_y)
    return (value, Slopes(zero, zero, by_x, by_y)), nothing(real)


@scalar
def _iou_log(pair: Any, real: Any, numbers: Any) -> Any:
    """Numbers: below which IoU the loss is flat."""
    zero, least = real(0), real(numbers[0])
    kept = floored(pair.iou, least)
    along = Along(zero, zero, zero, zero, zero, zero)
    by_iou = real(-1) / kept if pair.iou > least else zero
    return zero - np.log(kept), Slopes(by_iou, zero, along, along)


@scalar
def _iou_square(pair: Any, real: Any, numbers: Any) -> Any:
    zero = real(0)
    along = Along(zero, zero, zero, zero, zero, zero)
    return pair.miss * (real(1) + pair.iou), Slopes(real(-2) * pair.iou, zero, along, along)


@scalar
def _wise(pair: Any, focus: Any, real: Any) -> Any:
    """WIoU with each box weighted by ``focus`` as well."""
    zero, two = real(0), real(2)
    _, wide, high, away_x, away_y = spans(pair, real)
    weight = np.exp(away_x * away_x + away_y * away_y) * focus
    value = weight * pair.miss
    x = Along(zero, two * value * away_x * wide, zero, zero, zero, zero)
    y = Along(zero, two * value * away_y * high, zero, zero, zero, zero)
    return value, Slopes(-weight, zero, x, y)


@scalar
def _wiou_v1(pair: Any, real: Any, numbers: Any) -> Any:
    return _wise(pair, real(1), real)


@scalar
def _wiou_v3(pair: Any, real: Any, numbers: Any) -> Any:
    """Numbers: the running mean of 1 − IoU, α and δ."""
    beta = pair.miss / real(numbers[0])
    delta = real(numbers[2])
    return _wise(pair, beta / delta * real(numbers[1]) ** (delta - beta), real)


@scalar
def _bounds(axis: Any, beta: Any, tiny: Any, real: Any) -> Any:
    """Bounded IoU along one axis, and its slopes by the offset, the predicted side and the target's."""
    half, one, two, four = real(0.5), real(1), real(2), real(4)
    offset = (axis.high - axis.low) * half / axis.hull
    twice = two * abs(offset)
    total = floored(axis.target + twice, tiny)
    centre = two * twice / total
    centre = one if centre > one else centre
    side, by_pred, by_target = _mismatch(axis, tiny, real)
    centre_low, side_low = beta if centre > beta else centre, beta if side > beta else side
    value = centre_low * (centre - half * centre_low) / beta + side_low * (side - half * side_low) / beta
    # Half of it where 2|δ| = W, as at any tie.
    free = half * (one + sign(axis.target - twice, real))
    by_centre, by_side = centre_low / beta * free / total, side_low / beta
    by_offset = four * by_centre * (axis.target / total) * sign(offset, real)
    return value, by_offset, by_side * by_pred, by_side * by_target - by_centre * (two * twice / total)


@scalar
def _bounded_iou(pair: Any, real: Any, numbers: Any) -> Any:
    """Numbers: β."""
    zero, beta = real(0), real(numbers[0])
    value_x, offset_x, pred_x, target_x = _bounds(pair.x, beta, pair.tiny, real)
    value_y, offset_y, pred_y, target_y = _bounds(pair.y, beta, pair.tiny, real)
    x = Along(zero, offset_x, pred_x, target_x, zero, zero)
    y = Along(zero, offset_y, pred_y, target_y, zero, zero)
    return value_x + value_y, Slopes(zero, zero, x, y)


PENALTIES: dict[str, Callable[..., Any]] = {
    "iou": _iou,
    "giou": _giou,
    "diou": _diou,
    "ciou": _ciou,
    "eiou": _eiou,
    "siou": _siou,
    "mpdiou": _mpdiou,
}
WHOLE: dict[str, Callable[..., Any]] = {
    "iou_log": _iou_log,
    "iou_square": _iou_square,
    "wiou_v1": _wiou_v1,
    "wiou_v3": _wiou_v3,
    "bounded_iou": _bounded_iou,
}
