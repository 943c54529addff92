"""The hinges of all triplets of an anchor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from nearfar_pair.compiled.loops.distances import distances, of_square, split
from nearfar_pair.compiled.loops.rows import sum_of, unbounded
from nearfar_pair.compiled.loops.scalars import f32, size, summing

__all__ = ["triplets"]


@summing
def _against(negative: Any, hits: Any, near: Any, margin: Any) -> Any:
    """The hinges of a positive at this distance with all negatives: their sum, and how many cost; by negative too."""
    total, count = f32(0), f32(0)
    for j in range(size(negative.shape[0])):
        gap = near - negative[j]
        hit = f32(1) if gap > -margin else f32(0)
        total += gap + margin if gap > -margin else f32(0)
        count += hit
        hits[j] += hit
    return total, count


@summing
def _within(negative: Any, hits: Any, near: Any, margin: Any, lower: Any, upper: Any) -> Any:
    """The same of those with ``lower < −gap <= upper``."""
    total, count, is_open = f32(0), f32(0), lower == f32(-np.inf)
    for j in range(size(negative.shape[0])):
        gap = near - negative[j]
        costs = (gap > -margin) & ((gap < -lower) | is_open) & (gap >= -upper)
        hit = f32(1) if costs else f32(0)
        total += gap + margin if costs else f32(0)
        count += hit
        hits[j] += hit
    return total, count


def triplets(  # type: ignore[no-untyped-def]
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
    margin,
    lower,
    upper,
    _,
    __,
):
    """The hinges of all triplets of some anchors, or of those whose gap is within an interval.

    Products ``p`` (r, m) of the anchors from ``start`` to ``last`` become slopes.
    """
    p, own, classes = carray(p, (last - start, m)), carray(own, (last,)), carray(classes, (m,))
    square, squares, x, y = carray(square, (last,)), carray(squares, (m,)), carray(x, (last, dim)), carray(y, (m, dim))
    costs, counts, of_x = carray(costs, (last,)), carray(counts, (last,)), carray(of_x, (last,))
    margin, lower, upper = f32(margin), f32(lower), f32(upper)
    is_every = lower == f32(-np.inf) and upper >= margin
    negative, positive, hits, of_positive = np.empty(m, f32), np.empty(m, f32), np.empty(m, f32), np.empty(m, f32)
    place = np.empty(m, np.uintp)
    for i in range(size(start), size(last)):
        d = p[i - size(start)]
        distances(d, i, is_self, square[i], squares, kind, x[i], y)
        k, _ = split(d, classes, own[i], i, is_self, negative, place, positive)
        for j in range(size(m)):
            hits[j] = f32(0)
        total, count = 0.0, 0
        for t in range(k):
            if is_every:
                cost, hit = _against(negative, hits, positive[t], margin)
            else:
                cost, hit = _within(negative, hits, positive[t], margin, lower, upper)
            of_positive[t] = hit
            total += cost
            count += int(hit)
        costs[i] = f32(np.nan) if unbounded(d) else f32(total)
        counts[i] = count
        for j in range(size(m)):
            d[j] = of_square(-hits[j], d[j], kind)
        for t in range(k):
            d[place[t]] = of_square(of_positive[t], positive[t], kind)
        of_x[i] += sum_of(d, size(m))
