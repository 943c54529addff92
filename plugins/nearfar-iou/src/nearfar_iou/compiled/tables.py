"""Tables of similarities: every box of one set with every box of another, written where they are to be."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import carray, types

from nearfar.nn.compiled import compiled_as
from nearfar_iou.compiled.kernels import SOURCES
from nearfar_iou.compiled.scalars import floored, scalar

__all__ = ["FORMULAS", "table"]


@scalar
def _shared(a: Any, b: Any) -> Any:
    """The sides of the overlap of two boxes; how far they are apart, below 0, where they are."""
    return min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])


@scalar
def _overlap(a: Any, b: Any, width: Any, height: Any, real: Any) -> Any:
    """Overlap and union."""
    overlap = floored(width, real(0)) * floored(height, real(0))
    return overlap, a[6] + b[6] - overlap


@scalar
def _iou(a: Any, b: Any, tiny: Any, real: Any) -> Any:
    width, height = _shared(a, b)
    overlap, union = _overlap(a, b, width, height, real)
    return overlap / union


@scalar
def _giou(a: Any, b: Any, tiny: Any, real: Any) -> Any:
    width, height = _shared(a, b)
    # What two boxes share and what is round both of them add up to both of them, along each axis.
    hull = (a[4] + b[4] - width) * (a[5] + b[5] - height)
    overlap, union = _overlap(a, b, width, height, real)
    return overlap / union + union / hull - real(1)


@scalar
def _diou(a: Any, b: Any, tiny: Any, real: Any) -> Any:
    width, height = _shared(a, b)
    wide, high = a[4] + b[4] - width, a[5] + b[5] - height
    across, along = (a[0] + a[2]) - (b[0] + b[2]), (a[1] + a[3]) - (b[1] + b[3])
    overlap, union = _overlap(a, b, width, height, real)
    return overlap / union - real(0.25) * ((across * across + along * along) / (wide * wide + high * high))


@scalar
def _ciou(a: Any, b: Any, tiny: Any, real: Any) -> Any:
    turn = a[7] - b[7]
    v = turn * turn
    return _diou(a, b, tiny, real) - v * v / floored(real(1) - _iou(a, b, tiny, real) + v, tiny)


FORMULAS: dict[str, Callable[..., Any]] = {"iou": _iou, "giou": _giou, "diou": _diou, "ciou": _ciou}

#: By address: two sets of boxes and the table; how many boxes the sets have.
CALL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_ssize_t] * 2)


@cache
def table(formula: str, double: bool) -> Callable[..., None] | None:
    """What writes a table (n, m), given by address; None where it cannot be compiled.

    Its boxes are proper ones whose areas neither over- nor underflow, even squared: (8, n) and (8, m), by row x1, y1,
    x2, y2, the width, the height, the area, and the arctangent of width by height in quarters of a turn, which is read
    for ``"ciou"`` alone. All three are adjacent in memory, in float32 or, where ``double``, float64.

    Parameters
    ----------
    formula
        A name of :data:`FORMULAS`.
    """
    array = types.CPointer(types.float64 if double else types.float32)
    signature = types.void(array, array, array, types.intp, types.intp)
    return compiled_as(CALL, signature, _loop(formula, double), formula)


def _loop(name: str, double: bool) -> Callable[..., None]:
    real = np.float64 if double else np.float32
    tiny_number = float(np.finfo(real).tiny)
    formula = FORMULAS[name]
    sources = SOURCES

    def kernel(rows, columns, out, n, m):  # type: ignore[no-untyped-def]
        sources  # noqa: B018  # a closed-over name is part of the cache's key
        one, others, similarity = carray(rows, (8, n)), carray(columns, (8, m)), carray(out, (n, m))
        x1, y1, x2, y2 = others[0], others[1], others[2], others[3]
        width, height, area, angle = others[4], others[5], others[6], others[7]
        tiny = real(tiny_number)
        for i in range(n):
            a = (one[0, i], one[1, i], one[2, i], one[3, i], one[4, i], one[5, i], one[6, i], one[7, i])
            found = similarity[i]
            # An index that might be negative would count from the end, and could not be vectorised.
            for j in range(np.uintp(m)):
                b = (x1[j], y1[j], x2[j], y2[j], width[j], height[j], area[j], angle[j])
                found[j] = formula(a, b, tiny, real)

    return kernel
