"""What pairs cost by an excess, a line of their distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from nearfar_pair.compiled.loops.distances import SIMILARITY, of_square, part
from nearfar_pair.compiled.loops.rows import BLOCK, sum_of
from nearfar_pair.compiled.loops.scalars import exact, exp, f32, f64, log_1p, size, summing

__all__ = ["pair_slopes", "pairs"]

#: What an excess costs.
HINGE, SQUARED_HINGE, LOGISTIC = 0, 1, 2
#: Flags of :func:`pair_slopes`: distances are made, and lines have something to learn.
MADE, LEARNS = 1, 2


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
    return above + log_1p(exp(e if e < f32(0) else -e))


@exact
def _by_logistic(e: Any) -> Any:
    u = exp(e if e < f32(0) else -e)
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
    near, far = f64(0), f64(0)
    for start in range(size(0), size(last), size(BLOCK)):
        stop, of_near, of_far = min(start + size(BLOCK), size(last)), f32(0), f32(0)
        for j in range(start, stop):
            of_near += x[j] if classes[j] == own else f32(0)
        for j in range(start, stop):
            of_far += f32(0) if classes[j] == own else x[j]
        near += of_near
        far += of_far
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


@exact
def _times(x: Any, d: Any, found: Any, last: Any) -> None:
    """Write the products with the distances."""
    for j in range(last):
        found[j] = x[j] * d[j]


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
        part(d, size(0), last, square[i], squares, kind, x[i], y)
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
    slope, times = np.empty(m, f32), np.empty(m, f32)
    for r in range(size(rows)):
        i, d, s = size(start) + r, p[r], w[r]
        last = i if is_self else size(m)
        if not flags & MADE:
            part(d, size(0), last, square[i], squares, kind, x[i], y)
        _slopes(link, d, slope, classes, own[i], last, lines)
        if flags & LEARNS:
            _times(slope, d, times, last)
            near, far = _sums(times, classes, own[i], last)
            found[0] += near_by * near
            found[2] += far_by * far
            near, far = _sums(slope, classes, own[i], last)
            found[1] += near_by * near
            found[3] += far_by * far
        for j in range(last):
            s[j] = of_square(slope[j] * (by_near if classes[j] == own[i] else by_far), d[j], kind)
        for j in range(last, size(m)):
            s[j] = f32(0)
        if kind != SIMILARITY:
            by_x[i] += sum_of(s, last)
            for j in range(last):
                by_y[j] += s[j]
