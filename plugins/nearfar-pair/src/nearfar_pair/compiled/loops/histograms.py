"""Average precision from histograms of distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from nearfar_pair.compiled.loops.distances import distances, of_square, split
from nearfar_pair.compiled.loops.rows import nans, sum_of
from nearfar_pair.compiled.loops.scalars import TINY, exact, f32, i32, size, summing

__all__ = ["fast_ap"]


@summing
def _up_to(scaled: Any, centre: Any) -> Any:
    """How much of a row's values is up to a centre, each shared by the two that it is between."""
    total = f32(0)
    for j in range(size(scaled.shape[0])):
        share = centre - scaled[j]
        share = f32(1) if share > f32(1) else share
        total += share if share > f32(0) else f32(0)
    return total


@exact
def _binned(scaled: Any, place: Any, bins: int) -> Any:
    """Write in which bin each value is, or one more; the least and the greatest bin, and how many are in one."""
    beyond = f32(bins + 1)
    for j in range(size(scaled.shape[0])):
        value = scaled[j]
        value = value if value > f32(0) else f32(0)
        place[j] = i32(value if value < beyond else beyond)
    least, most, count = i32(bins + 1), i32(0), i32(0)
    for j in range(size(scaled.shape[0])):
        is_in = place[j] <= bins
        least = min(least, place[j])
        most = max(most, place[j] if is_in else i32(0))
        count += i32(1) if is_in else i32(0)
    return least, most, count


def fast_ap(  # type: ignore[no-untyped-def]
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
    bins,
    most,
    _,
    __,
    ___,
):
    """One minus the average precision of some anchors, from histograms of so many bins up to ``most``.

    As :func:`triplets`; what is counted are positives.
    """
    p, own, classes = carray(p, (last - start, m)), carray(own, (last,)), carray(classes, (m,))
    square, squares, x, y = carray(square, (last,)), carray(squares, (m,)), carray(x, (last, dim)), carray(y, (m, dim))
    costs, counts, of_x = carray(costs, (last,)), carray(counts, (last,)), carray(of_x, (last,))
    bins = int(bins)
    width = f32(most / bins)
    scaled, positive, place = np.empty(m, f32), np.empty(m, f32), np.empty(m, np.uintp)
    in_bin = np.empty(m, i32)
    near, far = np.empty(bins + 1, f32), np.empty(bins + 1, f32)
    # What is in no bin finds a 0.
    by_near, by_far = np.zeros(bins + 2, f32), np.zeros(bins + 2, f32)
    for i in range(size(start), size(last)):
        d = p[i - size(start)]
        distances(d, i, is_self, square[i], squares, kind, x[i], y)
        k, _ = split(d, classes, own[i], i, is_self, scaled, place, positive)
        counts[i] = k
        is_none = nans(d) > 0
        if k == 0 or is_none:
            costs[i] = f32(np.nan) if is_none else f32(0)
            for j in range(size(m)):
                d[j] = f32(0)
            continue
        for j in range(size(m)):
            scaled[j] = scaled[j] / width
        lowest, highest, count = _binned(scaled, in_bin, bins)
        for b in range(bins + 1):
            if b < lowest:
                far[b] = f32(0)
            else:
                far[b] = f32(count) if b > highest else _up_to(scaled, f32(b + 1))
            up_to = f32(0)
            for t in range(k):
                up_to += min(max(f32(b + 1) - positive[t] / width, f32(0)), f32(1))
            near[b] = up_to
        near[bins] = f32(k)  # what is farther than any two unit vectors is in the last bin
        cost, before = 0.0, f32(0)
        for b in range(bins + 1):
            total = max(near[b] + far[b], f32(TINY))
            missed, gained = far[b] / total, near[b] - before
            before = near[b]
            cost += gained * missed
            share = gained / total / f32(k)
            by_far[b] = share * (f32(1) - missed) / -width
            by_near[b] = missed / f32(k)
            near[b] = share * missed
        # A value is in all bins from its own on: what one gains the next loses.
        for b in range(bins):
            by_near[b] = (by_near[b] - by_near[b + 1] - near[b]) / -width
        by_near[bins] = f32(0)
        costs[i] = f32(cost / k)
        for j in range(size(m)):
            d[j] = of_square(by_far[in_bin[j]], d[j], kind)
        for t in range(k):
            value = min(max(positive[t] / width, f32(0)), f32(bins + 1))
            d[place[t]] = of_square(by_near[i32(value)], positive[t], kind)
        of_x[i] += sum_of(d, size(m))
