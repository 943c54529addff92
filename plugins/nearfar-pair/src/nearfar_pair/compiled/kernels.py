"""Loops over rows of inner products: distances, what they cost, and the slopes of that in place of the products.

Slopes are by half the squared distance, or by the negated similarity: what inner products with the embeddings make the
gradient of. All is computed from one row, which stays in the innermost cache, in loops that each write to one place and
compare nothing but what is there, so that the compiler makes them loops over whole vector registers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import register_jitable

from nearfar.nn.compiled import compiled_as

__all__ = ["compiled"]

f32, f64, i32, size = np.float32, np.float64, np.int32, np.uintp
FAR = f32(1e18)
#: A squared distance below this share of the squared lengths has lost three digits and more; as the distances have it.
NEAR = f32(1e-3)
#: How products become distances; what an excess costs.
SIMILARITY, SQUARED, ROOT = 0, 1, 2
HINGE, SQUARED_HINGE, LOGISTIC = 0, 1, 2
#: What an anchor costs by the sums of its exponentials, as :mod:`nearfar_pair.compiled.rules` has it.
ODDS, MEAN_ODDS, PROBABILITY, HINGE_OF_BOTH, CIRCLE, EACH_SIDE, MEAN_SHARE = range(7)
EACH_ODDS, EACH_DIFFERENCE, EACH_RELAXED = range(7, 10)
#: The logarithm of a sum of nothing, from which others can be taken.
BELOW = 1e30
#: So many of a row are looked over for what there is seldom, before one is.
GROUP = 64
TINY = float(np.finfo(f32).tiny)
#: A point that is no longer has no direction, as :mod:`nearfar.nn.vectors` has it.
SHORTEST = 1e-12

#: Only the sign of a zero may differ from what is written: what is equal stays equal, and NaN stays NaN.
exact: Any = register_jitable(forceinline=True, fastmath={"nsz"}, error_model="numpy")
#: Sums may be taken in any order.
summing: Any = register_jitable(forceinline=True, fastmath={"nsz", "reassoc"}, error_model="numpy")


# Points


def units(given, x, lengths, squares, told, n, dim, normalize):  # type: ignore[no-untyped-def]
    """Write points scaled to length one, where that is asked for, their lengths, and the squared lengths of what is
    compared; and to ``told`` whether all can be scaled just so."""
    given, x, told = carray(given, (n, dim)), carray(x, (n, dim)), carray(told, (1,))
    lengths, squares = carray(lengths, (n,)), carray(squares, (n,))
    told[0] = 1
    for i in range(size(n)):
        point, unit = given[i], x[i]
        square = _square(point)
        squares[i] = square
        if normalize:
            length = np.sqrt(square)
            # Not a comparison that is false of NaN, which can be scaled.
            if length <= f32(SHORTEST) or length == f32(np.inf):
                told[0] = 0
                return
            lengths[i] = length
            for k in range(size(dim)):
                unit[k] = point[k] / length
            squares[i] = _square(unit)


@summing
def _square(x: Any) -> Any:
    total = f32(0)
    for k in range(size(x.shape[0])):
        total += x[k] * x[k]
    return total


@summing
def _inner(x: Any, y: Any) -> Any:
    total = f32(0)
    for k in range(size(x.shape[0])):
        total += x[k] * y[k]
    return total


def finish(by, of, x, lengths, n, dim, adds, normalize):  # type: ignore[no-untyped-def]
    """Add so many times the points to the gradients by them, and take these back to what was scaled."""
    by, of, x, lengths = carray(by, (n, dim)), carray(of, (n,)), carray(x, (n, dim)), carray(lengths, (n,))
    for i in range(size(n)):
        gradient, unit = by[i], x[i]
        if adds:
            for k in range(size(dim)):
                gradient[k] += of[i] * unit[k]
        if normalize:
            radial, length = _inner(gradient, unit), lengths[i]
            for k in range(size(dim)):
                gradient[k] = (gradient[k] - radial * unit[k]) / length


# Distances


@exact
def _part(p: Any, first: Any, last: Any, square: Any, squares: Any, kind: int, x: Any, y: Any) -> None:
    """Turn the products of a row, from one place to another, into distances; of near points from the differences."""
    if kind == SIMILARITY:
        for j in range(first, last):
            p[j] = -p[j]
        return
    near = i32(0)
    for j in range(first, last):
        both = square + squares[j]
        d = both - (p[j] + p[j])
        near += i32(1) if d < NEAR * both else i32(0)
        p[j] = d
    if near:
        for j in range(first, last):
            if p[j] < NEAR * (square + squares[j]):
                total = f32(0)
                for k in range(x.shape[0]):
                    apart = x[k] - y[j, k]
                    total += apart * apart
                p[j] = total
    if kind == ROOT:
        for j in range(first, last):
            p[j] = np.sqrt(p[j])


@exact
def _distances(p: Any, i: Any, is_self: Any, square: Any, squares: Any, kind: int, x: Any, y: Any) -> None:
    """All distances of an anchor; FAR to itself."""
    width = size(p.shape[0])
    if is_self:
        _part(p, size(0), i, square, squares, kind, x, y)
        _part(p, i + size(1), width, square, squares, kind, x, y)
        p[i] = FAR
    else:
        _part(p, size(0), width, square, squares, kind, x, y)


@exact
def _of_square(slope: Any, d: Any, kind: int) -> Any:
    """The slope by half the squared distance, of that by the distance; 0 where two points are one."""
    if kind == ROOT:
        return slope / d if d != f32(0) else f32(0)
    return slope + slope if kind == SQUARED else slope


# Pairs


@exact
def _exp(x: Any) -> Any:
    """The exponential of what is not above 0, to the last digit or two of a float32; 0 where it is tiny."""
    is_tiny = x < f32(-87)
    y = f32(0) if is_tiny else x
    z = np.floor(y * f32(1.4426950408889634) + f32(0.5))
    # log 2 in two parts, of which the first has so few digits that its product is exact.
    r = (y - z * f32(0.693145751953125)) - z * f32(1.4286068202862268e-06)
    # exp(r) = 1 + r + r² q(r), where q is fitted at Chebyshev's nodes, to 3e-10.
    q = f32(0.00019900444082484458)
    q = q * r + f32(0.0013934544624128516)
    q = q * r + f32(0.008333297063350764)
    q = q * r + f32(0.041666456776322115)
    q = q * r + f32(0.16666666722232013)
    q = q * r + f32(0.5000000014291578)
    found = (f32(1) + (r + r * r * q)) * i32((i32(z) + i32(127)) << i32(23)).view(f32)
    return f32(0) if is_tiny else found


@exact
def _log_1p(u: Any) -> Any:
    """log(1 + u) of u from 0 to 1: twice the area tangent of u / (2 + u)."""
    s = u / (f32(2) + u)
    z = s * s
    p = f32(1 / 13)
    p = p * z + f32(1 / 11)
    p = p * z + f32(1 / 9)
    p = p * z + f32(1 / 7)
    p = p * z + f32(1 / 5)
    p = p * z + f32(1 / 3)
    return f32(2) * (s + s * z * p)


@exact
def _hinge(e: Any) -> Any:
    return f32(0) if e <= f32(0) else e


@exact
def _by_hinge(e: Any) -> Any:
    return f32(0) if e <= f32(0) else f32(1)


@exact
def _squared_hinge(e: Any) -> Any:
    h = f32(0) if e <= f32(0) else e
    return h * h


@exact
def _by_squared_hinge(e: Any) -> Any:
    h = f32(0) if e <= f32(0) else e
    return h + h


@exact
def _logistic(e: Any) -> Any:
    above = f32(0) if e <= f32(0) else e
    return above + _log_1p(_exp(e if e < f32(0) else -e))


@exact
def _by_logistic(e: Any) -> Any:
    u = _exp(e if e < f32(0) else -e)
    return (u if e < f32(0) else f32(1)) / (f32(1) + u)


def _each_of(function: Any) -> Any:
    """What writes a function of the excess of each pair of a row of distances."""

    @exact
    def each(d: Any, found: Any, classes: Any, own: Any, last: Any, lines: Any) -> None:
        a, b, g, h = lines
        for j in range(last):
            is_near = classes[j] == own
            found[j] = function((a if is_near else g) * d[j] + (b if is_near else h))

    return each


_hinges, _squared_hinges, _logistics = map(_each_of, (_hinge, _squared_hinge, _logistic))
_by_hinges, _by_squared_hinges, _by_logistics = map(_each_of, (_by_hinge, _by_squared_hinge, _by_logistic))


@exact
def _costs(link: int, d: Any, found: Any, classes: Any, own: Any, last: Any, lines: Any) -> None:
    if link == HINGE:
        _hinges(d, found, classes, own, last, lines)
    elif link == SQUARED_HINGE:
        _squared_hinges(d, found, classes, own, last, lines)
    else:
        _logistics(d, found, classes, own, last, lines)


@exact
def _slopes(link: int, d: Any, found: Any, classes: Any, own: Any, last: Any, lines: Any) -> None:
    if link == HINGE:
        _by_hinges(d, found, classes, own, last, lines)
    elif link == SQUARED_HINGE:
        _by_squared_hinges(d, found, classes, own, last, lines)
    else:
        _by_logistics(d, found, classes, own, last, lines)


@summing
def _sums(x: Any, classes: Any, own: Any, last: Any) -> Any:
    """The sums over the positives and over the negatives; one loop for each, or they would be no loops over registers,
    and none is what another leaves, which of an infinite one is no number."""
    near, far = f32(0), f32(0)
    for j in range(last):
        near += x[j] if classes[j] == own else f32(0)
    for j in range(last):
        far += f32(0) if classes[j] == own else x[j]
    return near, far


@summing
def _counts(x: Any, classes: Any, own: Any, last: Any) -> Any:
    """How many of the positives are above 0, and how many of the negatives."""
    near, every = f32(0), f32(0)
    for j in range(last):
        near += f32(1) if (classes[j] == own) & (x[j] > f32(0)) else f32(0)
    for j in range(last):
        every += f32(1) if x[j] > f32(0) else f32(0)
    return near, every - near


@summing
def _products(x: Any, d: Any, classes: Any, own: Any, last: Any) -> Any:
    """The sums of products with the distances."""
    near, far = f32(0), f32(0)
    for j in range(last):
        near += x[j] * d[j] if classes[j] == own else f32(0)
    for j in range(last):
        far += f32(0) if classes[j] == own else x[j] * d[j]
    return near, far


@summing
def _sum(x: Any, last: Any) -> Any:
    total = f32(0)
    for j in range(last):
        total += x[j]
    return total


def pairs(  # type: ignore[no-untyped-def]
    p, own, classes, square, squares, x, y, found, a, b, g, h, start, rows, m, dim, is_self, kind, link
):
    """Add up what the pairs of some anchors cost: of positives, of negatives, and how many do.

    Products ``p`` (rows, m) become distances. Of a batch with itself each pair is looked at once, from the later of the
    two, and ``m`` goes up to the last of these anchors.
    """
    p, own, classes = carray(p, (rows, m)), carray(own, (start + rows,)), carray(classes, (m,))
    square, squares = carray(square, (start + rows,)), carray(squares, (m,))
    x, y = carray(x, (start + rows, dim)), carray(y, (m, dim))
    found, lines = carray(found, (4,)), (f32(a), f32(b), f32(g), f32(h))
    cost = np.empty(m, f32)
    for r in range(size(rows)):
        i, d = size(start) + r, p[r]
        last = i if is_self else size(m)
        _part(d, size(0), last, square[i], squares, kind, x[i], y)
        _costs(link, d, cost, classes, own[i], last, lines)
        near, far = _sums(cost, classes, own[i], last)
        found[0] += near
        found[1] += far
        near, far = _counts(cost, classes, own[i], last)
        found[2] += near
        found[3] += far


def pair_slopes(  # type: ignore[no-untyped-def]
    p,
    own,
    classes,
    square,
    squares,
    x,
    y,
    found,
    a,
    b,
    g,
    h,
    start,
    rows,
    m,
    dim,
    is_self,
    kind,
    link,
    near_by,
    far_by,
    w,
    by_x,
    by_y,
    flags,
):
    """Write the slopes of the same costs to ``w`` (rows, m), which may be ``p``, and what the points themselves are
    multiplied with; where :data:`LEARNS` is among the flags, add up the gradients by the lines.

    Where :data:`MADE` is, ``p`` has distances already.
    """
    p, own, classes = carray(p, (rows, m)), carray(own, (start + rows,)), carray(classes, (m,))
    square, squares = carray(square, (start + rows,)), carray(squares, (m,))
    x, y, w = carray(x, (start + rows, dim)), carray(y, (m, dim)), carray(w, (rows, m))
    by_x, by_y = carray(by_x, (start + rows,)), carray(by_y, (m,))
    found, lines = carray(found, (4,)), (f32(a), f32(b), f32(g), f32(h))
    by_near, by_far = f32(near_by * a), f32(far_by * g)
    slope = np.empty(m, f32)
    for r in range(size(rows)):
        i, d, s = size(start) + r, p[r], w[r]
        last = i if is_self else size(m)
        if not flags & MADE:
            _part(d, size(0), last, square[i], squares, kind, x[i], y)
        _slopes(link, d, slope, classes, own[i], last, lines)
        if flags & LEARNS:
            near, far = _products(slope, d, classes, own[i], last)
            found[0] += near_by * near
            found[2] += far_by * far
            near, far = _sums(slope, classes, own[i], last)
            found[1] += near_by * near
            found[3] += far_by * far
        for j in range(last):
            s[j] = _of_square(slope[j] * (by_near if classes[j] == own[i] else by_far), d[j], kind)
        for j in range(last, size(m)):
            s[j] = f32(0)
        if kind != SIMILARITY:
            by_x[i] += _sum(s, last)
            for j in range(last):
                by_y[j] += s[j]


#: Flags of :func:`pair_slopes`.
MADE, LEARNS = 1, 2


# Rows


@exact
def _marked(classes: Any, own: Any, first: Any, last: Any) -> Any:
    """How many references from one place to another are of a class."""
    found = i32(0)
    for j in range(first, last):
        found += i32(1) if classes[j] == own else i32(0)
    return found


@exact
def _nans(d: Any) -> Any:
    found = i32(0)
    for j in range(size(d.shape[0])):
        found += i32(1) if d[j] != d[j] else i32(0)
    return found


@exact
def _split(d: Any, classes: Any, own: Any, i: Any, is_self: Any, negative: Any, place: Any, positive: Any) -> Any:
    """Write where the positives of an anchor are, and their distances, and those of the negatives, FAR for what is
    none; how many positives there are, and references of the class."""
    m = size(d.shape[0])
    for j in range(m):
        negative[j] = FAR if classes[j] == own else d[j]
    k, of_class = 0, 0
    for start in range(size(0), m, size(GROUP)):
        stop = min(start + size(GROUP), m)
        count = _marked(classes, own, start, stop)
        of_class += count
        if count:
            for j in range(start, stop):
                if classes[j] == own and not (is_self and j == i):
                    place[k], positive[k] = j, d[j]
                    k += 1
    return k, of_class


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
    total, count = f32(0), f32(0)
    for j in range(size(negative.shape[0])):
        gap = near - negative[j]
        costs = (gap > -margin) & (gap < -lower) & (gap >= -upper)
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
        _distances(d, i, is_self, square[i], squares, kind, x[i], y)
        k, _ = _split(d, classes, own[i], i, is_self, negative, place, positive)
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
        costs[i] = f32(np.nan) if k and _nans(d) else f32(total)
        counts[i] = count
        for j in range(size(m)):
            d[j] = _of_square(-hits[j], d[j], kind)
        for t in range(k):
            d[place[t]] = _of_square(of_positive[t], positive[t], kind)
        of_x[i] += _sum(d, size(m))


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
        _distances(d, i, is_self, square[i], squares, kind, x[i], y)
        k, _ = _split(d, classes, own[i], i, is_self, scaled, place, positive)
        counts[i] = k
        if k == 0 or _nans(d):
            costs[i] = f32(np.nan) if k else f32(0)
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
            d[j] = _of_square(by_far[in_bin[j]], d[j], kind)
        for t in range(k):
            value = min(max(positive[t] / width, f32(0)), f32(bins + 1))
            d[place[t]] = _of_square(by_near[i32(value)], positive[t], kind)
        of_x[i] += _sum(d, size(m))


# Sums of exponentials


@exact
def _softplus(x: Any) -> Any:
    return max(x, 0.0) + np.log1p(np.exp(-abs(x)))


@exact
def _sigmoid(x: Any) -> Any:
    u = np.exp(-abs(x))
    return (u if x < 0.0 else 1.0) / (1.0 + u)


@exact
def _greatest(x: Any, lanes: Any) -> Any:
    """The greatest of a row without NaN, of as many numbers at a time as there are lanes."""
    m = size(x.shape[0])
    whole = m - m % size(16)
    for t in range(size(16)):
        lanes[t] = f32(-np.inf)
    for start in range(size(0), whole, size(16)):
        for t in range(size(16)):
            lanes[t] = x[start + t] if x[start + t] > lanes[t] else lanes[t]
    greatest = f32(-np.inf)
    for t in range(size(16)):
        greatest = max(greatest, lanes[t])
    for j in range(whole, m):
        greatest = max(greatest, x[j])
    return greatest


@exact
def _exponents(d: Any, found: Any, scale: Any, is_circle: Any, margin: Any) -> None:
    """Write what the exponentials of a row of negatives are of: far below all others of what is far."""
    m = size(d.shape[0])
    if is_circle:
        for j in range(m):
            alpha = (margin if d[j] > margin else d[j]) - margin
            found[j] = -FAR if d[j] == FAR else scale * (alpha * (d[j] + margin))
    else:
        for j in range(m):
            found[j] = -FAR if d[j] == FAR else scale * d[j]


@exact
def _exponentials(x: Any, first: Any) -> None:
    """The exponentials of what a row is less than its greatest, in place."""
    for j in range(size(x.shape[0])):
        x[j] = _exp(x[j] - first)


@exact
def _exponent(d: Any, scale: Any, rule: int, number: Any) -> Any:
    """What the exponential of a positive is of, and its slope by the distance."""
    if rule == CIRCLE:
        alpha = scale * max(d + (1.0 + number), 0.0)
        return alpha * (d + (1.0 - number)), alpha
    if rule == EACH_RELAXED:
        cosine, sine = np.cos(number), np.sin(number)
        c = min(max(d, -cosine), 1.0)
        # Of the product, not of 1 − c²: near 1 that has lost its digits. Of what is opposite its root has no slope.
        s = np.sqrt(max((1.0 + c) * (1.0 - c), TINY))
        inside = (d > -cosine) & (d < 1.0)
        return scale * (s * sine - c * cosine), scale * (-sine * c / s - cosine) if inside else 0.0
    return scale * d, scale


@exact
def _by_exponents(d: Any, shares: Any, by: Any, is_circle: Any, margin: Any, kind: int) -> None:
    """Write the slopes by half the squared distance in place of the distances, of that by the exponents."""
    m = size(d.shape[0])
    if is_circle:
        for j in range(m):
            alpha = (margin if d[j] > margin else d[j]) - margin
            d[j] = _of_square(by * shares[j] * alpha, d[j], kind)
    else:
        for j in range(m):
            d[j] = _of_square(by * shares[j], d[j], kind)


def soft(  # type: ignore[no-untyped-def]
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
    rule,
    near,
    far,
    number,
    _,
):
    """What anchors cost by sums of exponentials, of ``near`` times the distances of the positives and of ``far`` times
    those of the negatives; by one of the rules that :mod:`nearfar_pair.compiled.rules` names.

    As :func:`triplets`; what is counted are the terms of an anchor.
    """
    p, own, classes = carray(p, (last - start, m)), carray(own, (last,)), carray(classes, (m,))
    square, squares, x, y = carray(square, (last,)), carray(squares, (m,)), carray(x, (last, dim)), carray(y, (m, dim))
    costs, counts, of_x = carray(costs, (last,)), carray(counts, (last,)), carray(of_x, (last,))
    negative, positive, place, lanes = np.empty(m, f32), np.empty(m, f32), np.empty(m, np.uintp), np.empty(16, f32)
    weight, steep = np.empty(m, f64), np.empty(m, f64)
    rule, is_circle, margin = int(rule), rule == CIRCLE, f32(number)
    for i in range(size(start), size(last)):
        d = p[i - size(start)]
        _distances(d, i, is_self, square[i], squares, kind, x[i], y)
        k, of_class = _split(d, classes, own[i], i, is_self, negative, place, positive)
        # The logarithm of each sum, and the share that each has of it.
        has_negative, of_far, by_far, total = of_class < m, -BELOW, 0.0, f32(1)
        is_none = _nans(d) > 0
        if has_negative and not is_none:
            _exponents(negative, negative, f32(far), is_circle, margin)
            first = _greatest(negative, lanes)
            _exponentials(negative, first)
            total = _sum(negative, size(m))
            of_far = f64(first) + np.log(f64(total))
        of_near, greatest = -BELOW, -np.inf
        for t in range(k):
            weight[t], steep[t] = _exponent(f64(positive[t]), near, rule, number)
            greatest = max(greatest, weight[t])
        if k:
            shared = 0.0
            for t in range(k):
                shared += np.exp(weight[t] - greatest)
            of_near = greatest + np.log(shared)
        cost, count, by_near = 0.0, 1, 0.0
        if rule <= PROBABILITY:
            count = 1 if k else 0
            if k:
                odds = of_far - of_near
                by_far = _sigmoid(odds)
                cost = _softplus(odds)
                if rule == PROBABILITY:
                    cost = by_far
                    by_far = by_far * _sigmoid(-odds)
                elif rule == MEAN_ODDS:
                    cost += np.log(f64(k))
                by_near = -by_far
        elif rule <= CIRCLE:
            count = 1 if k and has_negative else 0
            if count:
                both = of_near + of_far
                if rule == CIRCLE:
                    cost = _softplus(both)
                    by_far = _sigmoid(both)
                else:
                    cost = max(both + number, 0.0)
                    by_far = 1.0 if cost > 0.0 else 0.0
                by_near = by_far
        elif rule == EACH_SIDE:
            cost = _softplus(of_near - near * number) / near + _softplus(of_far - far * number) / -far
            by_near, by_far = _sigmoid(of_near - near * number) / near, _sigmoid(of_far - far * number) / -far
        elif rule == MEAN_SHARE:
            count = 1 if k else 0
            if k:
                odds = of_far - of_near
                every = of_near + _softplus(odds)
                for t in range(k):
                    cost += every - weight[t]
                cost /= k
                by_far = _sigmoid(odds)
                by_near = _sigmoid(-odds)
        for t in range(k):
            share = by_near * np.exp(weight[t] - of_near)
            if rule == MEAN_SHARE:
                share -= 1.0 / k
            elif rule == EACH_ODDS or (rule == EACH_RELAXED and has_negative):
                odds = of_far - weight[t]
                cost += _softplus(odds)
                share = -_sigmoid(odds)
                by_far -= share
            elif rule == EACH_DIFFERENCE and has_negative:
                cost += of_far - weight[t]
                share = -1.0
                by_far += 1.0
            weight[t] = share * steep[t]
        if rule == EACH_ODDS:
            count = k
        elif rule >= EACH_DIFFERENCE:
            count = k if has_negative else 0
        costs[i] = f32(np.nan) if is_none and count else f32(cost)
        counts[i] = count
        if has_negative and not is_none:
            _by_exponents(d, negative, f32(by_far * far / total), is_circle, margin, kind)
        else:
            for j in range(size(m)):
                d[j] = f32(0)
        for t in range(k):
            d[place[t]] = _of_square(f32(weight[t]), positive[t], kind)
        if is_self:
            d[i] = f32(0)
        of_x[i] += _sum(d, size(m))


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
        w = _exp(temperature * (cost[j] - greatest))
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
        _distances(d, i, is_self, square[i], squares, kind, x[i], y)
        k, _ = _split(d, classes, own[i], i, is_self, cost, place, positive)
        counts[i] = 1
        if _nans(d):
            costs[i] = f32(np.nan)
            for j in range(size(m)):
                d[j] = f32(0)
            continue
        _costly(cost, cost, f32(-1), f32(boundary))
        _weighed(cost, weight, _greatest(cost, lanes), f32(temperature))
        sums = max(_sum(weight, size(m)), f32(TINY))
        total = balance * (f64(_inner(weight, cost)) / f64(sums))
        by = f32(-balance / f64(sums))
        for j in range(size(m)):
            d[j] = _of_square(by * weight[j], d[j], kind)
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
            d[place[t]] = _of_square(f32((1.0 - balance) * near[t] / shared), positive[t], kind)
        if is_self:
            d[i] = f32(0)
        of_x[i] += _sum(d, size(m))


def columns(p, of_y, rows, m):  # type: ignore[no-untyped-def]
    """Add the slopes ``p`` (rows, m) to what each reference is multiplied with."""
    p, of_y = carray(p, (rows, m)), carray(of_y, (m,))
    for r in range(size(rows)):
        slopes = p[r]
        for j in range(size(m)):
            of_y[j] += slopes[j]


# The hardest


@exact
def _first_least(d: Any, lanes: Any) -> Any:
    """Where the least of a row is, the first of equals; what is no number is least."""
    m = size(d.shape[0])
    if _nans(d):
        for j in range(m):
            if d[j] != d[j]:
                return j
    # As many numbers at a time as ``lanes`` are: the least of one row alone is no loop over registers.
    for t in range(size(16)):
        lanes[t] = f32(np.inf)
    whole = m - m % size(16)
    for start in range(size(0), whole, size(16)):
        for t in range(size(16)):
            lanes[t] = d[start + t] if d[start + t] < lanes[t] else lanes[t]
    least = f32(np.inf)
    for t in range(size(16)):
        least = min(least, lanes[t])
    for j in range(whole, m):
        least = min(least, d[j])
    for start in range(size(0), m, size(GROUP)):
        stop = min(start + size(GROUP), m)
        hits = i32(0)
        for j in range(start, stop):
            hits += i32(1) if d[j] == least else i32(0)
        if hits:
            for j in range(start, stop):
                if d[j] == least:
                    return j
    return size(0)


def hardest(  # type: ignore[no-untyped-def]
    p, own, classes, square, squares, x, y, d_ap, d_an, start, last, m, dim, is_self, kind, places
):
    """Find the farthest positive and the nearest negative of some anchors, and their distances.

    ``places`` (2, n) are where they are, −1 of an anchor that has not both. Products ``p`` become distances.
    """
    p, own, classes = carray(p, (last - start, m)), carray(own, (last,)), carray(classes, (m,))
    square, squares, x, y = carray(square, (last,)), carray(squares, (m,)), carray(x, (last, dim)), carray(y, (m, dim))
    d_ap, d_an, places = carray(d_ap, (last,)), carray(d_an, (last,)), carray(places, (last, 2))
    negative, positive, place, lanes = np.empty(m, f32), np.empty(m, f32), np.empty(m, np.uintp), np.empty(16, f32)
    for i in range(size(start), size(last)):
        d = p[i - size(start)]
        # Of roots their squares are in the same order.
        _distances(d, i, is_self, square[i], squares, min(kind, SQUARED), x[i], y)
        k, of_class = _split(d, classes, own[i], i, is_self, negative, place, positive)
        if k == 0 or of_class == m:
            places[i, 0], places[i, 1], d_ap[i], d_an[i] = -1, -1, -FAR, FAR
            continue
        best = 0
        for t in range(1, k):
            if positive[best] == positive[best] and not positive[t] <= positive[best]:
                best = t
        j = _first_least(negative, lanes)
        far, near = positive[best], negative[j]
        places[i, 0], places[i, 1] = place[best], j
        d_ap[i], d_an[i] = (np.sqrt(far), np.sqrt(near)) if kind == ROOT else (far, near)


def scatter(places, weights, x, y, by_x, by_y, n, m, dim, kind):  # type: ignore[no-untyped-def]
    """Add to the gradients what comes of the slopes (n, 2) by half the squared distances of anchors to two places."""
    places, weights = carray(places, (n, 2)), carray(weights, (n, 2))
    x, y, by_x, by_y = carray(x, (n, dim)), carray(y, (m, dim)), carray(by_x, (n, dim)), carray(by_y, (m, dim))
    for i in range(size(n)):
        for side in range(2):
            weight, j = weights[i, side], places[i, side]
            if j < 0 or weight == f32(0):
                continue
            a, b, by_a, by_b = x[i], y[j], by_x[i], by_y[j]
            if kind == SIMILARITY:
                for k in range(size(dim)):
                    by_a[k] -= weight * b[k]
                for k in range(size(dim)):
                    by_b[k] -= weight * a[k]
            else:
                for k in range(size(dim)):
                    by_a[k] += weight * (a[k] - b[k])
                for k in range(size(dim)):
                    by_b[k] -= weight * (a[k] - b[k])


# How they are called


_POINTER = ctypes.c_void_p
_KINDS = {
    "p": (_POINTER, types.CPointer(types.float32)),
    "c": (_POINTER, types.CPointer(types.int64)),
    "d": (_POINTER, types.CPointer(types.float64)),
    "i": (ctypes.c_ssize_t, types.intp),
    "f": (ctypes.c_double, types.float64),
}
#: Of each its arguments: arrays of float32, int64 and float64, integers and numbers.
_KERNELS: dict[str, tuple[Callable[..., Any], str]] = {
    "units": (units, "pppp c iii"),
    "finish": (finish, "pppp iiii"),
    "pairs": (pairs, "pcc pppp d ffff iiii iii"),
    "pair_slopes": (pair_slopes, "pcc pppp d ffff iiii iii ff ppp i"),
    "triplets": (triplets, "pcc pppp pcp ii ii ii fffff"),
    "fast_ap": (fast_ap, "pcc pppp pcp ii ii ii fffff"),
    "soft": (soft, "pcc pppp pcp ii ii ii fffff"),
    "ranked": (ranked, "pcc pppp pcp ii ii ii fffff"),
    "columns": (columns, "pp ii"),
    "hardest": (hardest, "pcc pppp pp ii ii ii c"),
    "scatter": (scatter, "cp pppp iiii"),
}


@cache
def compiled(name: str) -> Callable[..., None] | None:
    """A kernel of this name, from numba's cache on disk where it is there; None where it cannot be compiled."""
    loop, letters = _KERNELS[name]
    called, inside = zip(*(_KINDS[letter] for letter in letters.replace(" ", "")), strict=True)
    return compiled_as(ctypes.CFUNCTYPE(None, *called), types.void(*inside), loop, name)
