"""Rows of inner products as distances, and positives and negatives apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from nearfar_pair.compiled.loops.rows import GROUP
from nearfar_pair.compiled.loops.scalars import FAR, exact, f32, i32, size

__all__ = ["ROOT", "SIMILARITY", "SQUARED", "columns", "distances", "of_square", "part", "split"]

#: A squared distance below this share of the squared lengths has lost three digits and more; as the distances have it.
NEAR = f32(1e-3)
#: How products become distances.
SIMILARITY, SQUARED, ROOT = 0, 1, 2


@exact
def part(p: Any, first: Any, last: Any, square: Any, squares: Any, kind: int, x: Any, y: Any) -> None:
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
def distances(p: Any, i: Any, is_self: Any, square: Any, squares: Any, kind: int, x: Any, y: Any) -> None:
    """All distances of an anchor; FAR to itself."""
    width = size(p.shape[0])
    if is_self:
        part(p, size(0), i, square, squares, kind, x, y)
        part(p, i + size(1), width, square, squares, kind, x, y)
        p[i] = FAR
    else:
        part(p, size(0), width, square, squares, kind, x, y)


@exact
def of_square(slope: Any, d: Any, kind: int) -> Any:
    """The slope by half the squared distance, of that by the distance; 0 where two points are one."""
    if kind == ROOT:
        return slope / d if d != f32(0) else f32(0)
    return slope + slope if kind == SQUARED else slope


@exact
def _marked(classes: Any, own: Any, first: Any, last: Any) -> Any:
    """How many references from one place to another are of a class."""
    found = i32(0)
    for j in range(first, last):
        found += i32(1) if classes[j] == own else i32(0)
    return found


@exact
def split(d: Any, classes: Any, own: Any, i: Any, is_self: Any, negative: Any, place: Any, positive: Any) -> Any:
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


def columns(p, of_y, rows, m):  # type: ignore[no-untyped-def]
    """Add the slopes ``p`` (rows, m) to what each reference is multiplied with."""
    p, of_y = carray(p, (rows, m)), carray(of_y, (m,))
    for r in range(size(rows)):
        slopes = p[r]
        for j in range(size(m)):
            of_y[j] += slopes[j]
