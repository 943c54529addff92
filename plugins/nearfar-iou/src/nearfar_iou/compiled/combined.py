"""What is made of a formula, and of a formula round another: the loss of a pair, with its slopes."""

from __future__ import annotations

from typing import Any

from nearfar_iou.compiled.formulas import added, nothing, weighted
from nearfar_iou.compiled.pair import Slopes, by_areas, by_extents, compare, measure, shrunk
from nearfar_iou.compiled.scalars import scalar

__all__ = ["alpha", "by_inner", "inner", "plain"]


@scalar
def plain(penalties: Any, miss: Any, by_iou: Any, real: Any) -> Any:
    """1 − IoU, the slope by which is given, and penalties."""
    (one, by_one), (two, by_two) = penalties
    zero, none = nothing(real)
    return miss + one + two, added(added(Slopes(by_iou, zero, none.x, none.y), by_one), by_two)


@scalar
def alpha(pair: Any, penalties: Any, power: Any, real: Any) -> Any:
    """1 − IoU and penalties, each to a power."""
    (one, by_one), (two, by_two) = penalties
    zero, none = nothing(real)
    less = power - real(1)
    iou = Slopes(-power * pair.iou**less, zero, none.x, none.y)
    by = added(added(iou, weighted(by_one, power * one**less)), weighted(by_two, power * two**less))
    return real(1) - pair.iou**power + one**power + two**power, by


@scalar
def inner(pred: Any, target: Any, ratio: Any, tiny: Any, real: Any) -> Any:
    """The pair of two boxes scaled about their centres."""
    x = measure(shrunk(pred.x, ratio, real), shrunk(target.x, ratio, real), real)
    y = measure(shrunk(pred.y, ratio, real), shrunk(target.y, ratio, real), real)
    return compare(x, y, tiny)


@scalar
def by_inner(inner: Any, ratio: Any, of_target: bool, real: Any) -> Any:
    """Derivatives of 1 − the inner IoU by the extents of a box as it was before it was scaled."""
    zero, none = nothing(real)
    areas = by_areas(inner, Slopes(real(-1), zero, none.x, none.y))
    low_x, high_x = by_extents(inner.x, inner.y, areas, none.x, of_target, real)
    low_y, high_y = by_extents(inner.y, inner.x, areas, none.y, of_target, real)
    # What scales the extents is symmetric, so it carries derivatives back as well.
    cut = (real(1) - ratio) * real(0.5)
    cut_x, cut_y = cut * (low_x + high_x), cut * (low_y + high_y)
    return low_x - cut_x, high_x - cut_x, low_y - cut_y, high_y - cut_y
