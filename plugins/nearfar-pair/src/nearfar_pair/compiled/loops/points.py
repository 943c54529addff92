"""Points scaled to length one, and gradients taken back to what was scaled."""

from __future__ import annotations

import numpy as np
from numba import carray

from nearfar_pair.compiled.loops.rows import inner, square_of
from nearfar_pair.compiled.loops.scalars import f32, size

__all__ = ["finish", "units"]

#: A point that is no longer has no direction, as :mod:`nearfar.nn.vectors` has it.
SHORTEST = 1e-12


def units(given, x, lengths, squares, told, n, dim, normalize):  # type: ignore[no-untyped-def]
    """Write points scaled to length one, where that is asked for, their lengths, and the squared lengths of what is
    compared; and to ``told`` whether all can be scaled just so."""
    given, x, told = carray(given, (n, dim)), carray(x, (n, dim)), carray(told, (1,))
    lengths, squares = carray(lengths, (n,)), carray(squares, (n,))
    told[0] = 1
    for i in range(size(n)):
        point, unit = given[i], x[i]
        square = square_of(point)
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
            squares[i] = square_of(unit)


def finish(by, of, x, lengths, n, dim, adds, normalize):  # type: ignore[no-untyped-def]
    """Add so many times the points to the gradients by them, and take these back to what was scaled."""
    by, of, x, lengths = carray(by, (n, dim)), carray(of, (n,)), carray(x, (n, dim)), carray(lengths, (n,))
    for i in range(size(n)):
        gradient, unit = by[i], x[i]
        if adds:
            for k in range(size(dim)):
                gradient[k] += of[i] * unit[k]
        if normalize:
            radial, length = inner(gradient, unit), lengths[i]
            for k in range(size(dim)):
                gradient[k] = (gradient[k] - radial * unit[k]) / length
