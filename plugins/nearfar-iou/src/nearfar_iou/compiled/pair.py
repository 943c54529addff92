"""The geometry of one prediction and its target: :mod:`nearfar_iou.geometry`, whose words and rules these are."""

from __future__ import annotations

from typing import Any, NamedTuple

from nearfar_iou.compiled.scalars import floored, scalar, sign

__all__ = [
    "Along",
    "Axis",
    "Box",
    "Pair",
    "Side",
    "Slopes",
    "by_areas",
    "by_coordinates",
    "by_extents",
    "compare",
    "folds",
    "measure",
    "repaired",
    "shrunk",
]


class Side(NamedTuple):
    """One box along one axis, an inverted side drawn together at its midpoint."""

    low: Any
    high: Any
    inverted: Any  # 1 where the side is inverted, 1/2 where it is 0
    given: Any  # the side as it was given


class Box(NamedTuple):
    """One box."""

    x: Side
    y: Side


class Axis(NamedTuple):
    """A pair along one axis: difference of the extents, hull in the unit of the boxes, sides in hulls."""

    low: Any
    high: Any
    hull: Any
    thick: Any  # 0 in an axis without extent, else 1
    meets: Any
    overlap: Any
    pred: Any
    target: Any


class Pair(NamedTuple):
    """A prediction and its target."""

    x: Axis
    y: Axis
    union: Any
    iou: Any
    miss: Any
    tiny: Any  # the least normal number


class Along(NamedTuple):
    """Derivatives by what is measured along one axis: ``low`` and ``high`` by the differences of the extents."""

    hull: Any
    offset: Any
    pred: Any
    target: Any
    low: Any
    high: Any


class Slopes(NamedTuple):
    """Derivatives of a loss."""

    iou: Any
    union: Any
    x: Along
    y: Along


@scalar
def repaired(first: Any, second: Any, matrix: Any, real: Any) -> Any:
    """The side of coordinates along one axis, which may be inverted; ``matrix`` makes extents of them, row by row."""
    a, b, c, d = matrix
    low, high = a * first + b * second, c * first + d * second
    half = real(0.5)
    given = low + high
    middle = (high - low) * half
    proper = given >= real(0)
    return Side(low if proper else -middle, high if proper else middle, half - half * sign(given, real), given)


@scalar
def folds(pred: Any, target: Any, real: Any) -> Any:
    """What an inverted predicted side costs, and its derivatives by that side and by the target's."""
    zero, one = real(0), real(1)
    depth, room = floored(-pred.given, zero), floored(target.given, zero)
    total = depth + room
    total = one if total == zero else total
    cost = depth / total
    return cost, -pred.inverted * (room / total / total), (target.inverted - one) * (cost / total)


@scalar
def measure(pred: Any, target: Any, real: Any) -> Any:
    """Two sides along one axis."""
    zero, one = real(0), real(1)
    p, t = pred.low + pred.high, target.low + target.high
    overlap = min(pred.low, target.low) + min(pred.high, target.high)
    hull = max(pred.low, target.low) + max(pred.high, target.high)
    meets = sign(overlap, real)
    meets = one if (meets == zero) & ((p == zero) | (t == zero)) else meets
    overlap = floored(overlap, zero)
    flat = one if hull == zero else zero
    hull = hull + flat
    return Axis(
        target.low - pred.low,
        target.high - pred.high,
        hull,
        one - flat,
        meets,
        (overlap + flat) / hull,
        (p + flat) / hull,
        (t + flat) / hull,
    )


@scalar
def compare(x: Any, y: Any, tiny: Any) -> Any:
    """A pair of its two axes."""
    overlap = x.overlap * y.overlap
    union = floored(x.pred * y.pred + x.target * y.target - overlap, tiny)
    return Pair(x, y, union, overlap / union, (union - overlap) / union, tiny)


@scalar
def shrunk(side: Any, ratio: Any, real: Any) -> Any:
    """A side scaled about its centre."""
    cut = (real(1) - ratio) * real(0.5) * (side.low + side.high)
    return Side(side.low - cut, side.high - cut, side.inverted, side.given)


@scalar
def by_areas(pair: Any, slopes: Any) -> Any:
    """Derivatives by the area of a box, alike for both, and by that of the overlap, the latter negative."""
    per_union = slopes.iou / pair.union
    by_box = slopes.union - pair.iou * per_union
    return by_box, by_box - per_union


@scalar
def by_extents(axis: Any, across: Any, areas: Any, slopes: Any, of_target: bool, real: Any) -> Any:
    """Derivatives by the low and the high extent along ``axis`` of the prediction or of the target.

    ``across`` is the other axis, ``areas`` what :func:`by_areas` says, ``slopes`` are those along ``axis``.
    """
    quarter, half, two = real(0.25), real(0.5), real(2)
    by_box, by_overlap = areas
    share = across.overlap * by_overlap
    share = share + share * axis.meets
    other = across.target if of_target else across.pred
    own = other * by_box - quarter * share + half * slopes.hull + (slopes.target if of_target else slopes.pred)
    share = share + two * slopes.hull
    low = quarter * (sign(axis.low, real) * share - two * slopes.offset)
    high = quarter * (sign(axis.high, real) * share + two * slopes.offset)
    if of_target:
        return (own + low) / axis.hull * axis.thick + slopes.low, (own + high) / axis.hull * axis.thick + slopes.high
    return (own - low) / axis.hull * axis.thick - slopes.low, (own - high) / axis.hull * axis.thick - slopes.high


@scalar
def by_coordinates(
    pair: Any, box: Any, turns: Any, slopes: Any, more: Any, matrix: Any, of_target: bool, real: Any
) -> Any:
    """Derivatives by the four coordinates of ``box``, the prediction or the target.

    ``turns`` are the derivatives of what inverted sides cost by its two sides, and ``more`` what comes on top of the
    slopes: the derivatives by its extents along x and along y.
    """
    areas = by_areas(pair, slopes)
    low_x, high_x = by_extents(pair.x, pair.y, areas, slopes.x, of_target, real)
    low_y, high_y = by_extents(pair.y, pair.x, areas, slopes.y, of_target, real)
    low_x, high_x, low_y, high_y = low_x + more[0], high_x + more[1], low_y + more[2], high_y + more[3]
    half = real(0.5)
    turn_x = turns[0] - half * box.x.inverted * (low_x + high_x)
    turn_y = turns[1] - half * box.y.inverted * (low_y + high_y)
    low_x, high_x, low_y, high_y = low_x + turn_x, high_x + turn_x, low_y + turn_y, high_y + turn_y
    a, b, c, d = matrix
    return a * low_x + c * high_x, a * low_y + c * high_y, b * low_x + d * high_x, b * low_y + d * high_y
