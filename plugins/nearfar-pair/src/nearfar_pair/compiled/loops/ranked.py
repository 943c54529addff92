"""What anchors cost by what is on the wrong side of a boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from nearfar_pair.compiled.loops.distances import distances, of_square, split
from nearfar_pair.compiled.loops.rows import greatest_of, inner, nans, sum_of
from nearfar_pair.compiled.loops.scalars import TINY, exact, exp, f32, f64, size

__all__ = ["ranked"]


@exact
def _costly(d: Any, found: Any, slope: Any, offset: Any) -> None:
    """Write the excess of a row of negatives where it is above 0, else 0."""
    for j in range(size(d.shape[0])):
        e = offset + slope * d[j]
        found[j] = f32(0) if e <= f32(0) else e


@exact
def _weighed(cost: Any, found: Any, greatest: Any, temperature: Any) -> None:
    """Write the exponentials of what costs of a row are less than the greatest, 0 of what costs nothing."""
    for j in range(size(cost.shape[0])):
        w = exp(temperature * (cost[j] - greatest))
        found[j] = f32(0) if cost[j] <= f32(0) else w


def ranked(  # type: ignore[no-untyped-def]
    p,
    own,
    classes,
    square,
    squares,
    x,
    y,
    costs,
    counts,
    of_x,
    start,
    last,
    m,
    dim,
    is_self,
    kind,
    boundary,
    margin,
    temperature,
    near_temperature,
    balance,
):
    """What anchors cost by positives and negatives on the wrong side of a boundary, each side's weighed mean.

    As :func:`triplets`; every anchor is counted.
    """
    p, own, classes = carray(p, (last - start, m)), carray(own, (last,)), carray(classes, (m,))
    square, squares, x, y = carray(square, (last,)), carray(squares, (m,)), carray(x, (last, dim)), carray(y, (m, dim))
    costs, counts, of_x = carray(costs, (last,)), carray(counts, (last,)), carray(of_x, (last,))
    cost, positive, place, lanes = np.empty(m, f32), np.empty(m, f32), np.empty(m, np.uintp), np.empty(16, f32)
    weight, near = np.empty(m, f32), np.empty(m, f64)
    for i in range(size(start), size(last)):
        d = p[i - size(start)]
        distances(d, i, is_self, square[i], squares, kind, x[i], y)
        k, _ = split(d, classes, own[i], i, is_self, cost, place, positive)
        counts[i] = 1
        if nans(d):
            costs[i] = f32(np.nan)
            for j in range(size(m)):
                d[j] = f32(0)
            continue
        _costly(cost, cost, f32(-1), f32(boundary))
        _weighed(cost, weight, greatest_of(cost, lanes), f32(temperature))
        sums = max(sum_of(weight, size(m)), f32(TINY))
        total = balance * (f64(inner(weight, cost)) / f64(sums))
        by = f32(-balance / f64(sums))
        for j in range(size(m)):
            d[j] = of_square(by * weight[j], d[j], kind)
        greatest, shared, weighed = 0.0, 0.0, 0.0
        for t in range(k):
            greatest = max(greatest, positive[t] - (boundary - margin))
        for t in range(k):
            excess = positive[t] - (boundary - margin)
            near[t] = np.exp(near_temperature * (excess - greatest)) if excess > 0.0 else 0.0
            shared += near[t]
            weighed += near[t] * excess
        shared = max(shared, TINY)
        costs[i] = f32(total + (1.0 - balance) * (weighed / shared))
        for t in range(k):
            d[place[t]] = of_square(f32((1.0 - balance) * near[t] / shared), positive[t], kind)
        if is_self:
            d[i] = f32(0)
        of_x[i] += sum_of(d, size(m))
