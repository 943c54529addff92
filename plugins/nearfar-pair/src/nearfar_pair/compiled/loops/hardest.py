"""The farthest positive and the nearest negative of an anchor, and gradients of pairs given by their places."""

from __future__ import annotations

import numpy as np
from numba import carray

from nearfar_pair.compiled.loops.distances import ROOT, SIMILARITY, SQUARED, distances, split
from nearfar_pair.compiled.loops.rows import first_least, nans
from nearfar_pair.compiled.loops.scalars import FAR, f32, size

__all__ = ["hardest", "scatter"]


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
        distances(d, i, is_self, square[i], squares, min(kind, SQUARED), x[i], y)
        k, of_class = split(d, classes, own[i], i, is_self, negative, place, positive)
        if k == 0 or of_class == m:
            places[i, 0], places[i, 1], d_ap[i], d_an[i] = -1, -1, f32(np.nan) if nans(d) else -FAR, FAR
            continue
        best = 0
        for t in range(1, k):
            if positive[best] == positive[best] and not positive[t] <= positive[best]:
                best = t
        j = first_least(negative, lanes)
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
