"""The loop over boxes: coordinates in, losses and their gradients by the coordinates out, in one pass.

A kernel is compiled for what it is asked for, kept on disk by numba beside this file, or in the user's cache directory
where that cannot be written, and is called by address: numba's own way from Python costs more than a thousand boxes do.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, types

from nearfar.nn.compiled import compiled_as
from nearfar_iou.compiled import combined
from nearfar_iou.compiled.formulas import PENALTIES, WHOLE, weighted
from nearfar_iou.compiled.pair import (
    Box,
    by_coordinates,
    compare,
    folds,
    measure,
    repaired,
)
from nearfar_iou.compiled.scalars import scalar

__all__ = ["SOURCES", "compiled"]

#: Boxes whose losses are computed, then added up: as many as stay in the innermost cache.
BLOCK = 256
#: Of kernels that are compiled, what of this package they are made of: numba only asks whether this very file changed.
SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()


#: By address: predictions, targets, weights, values, gradients by predictions and by targets; the number of boxes; how
#: extents follow from coordinates (see :func:`_loop`); three numbers of the formula, one of what is around it, and what
#: gradients are multiplied with.
CALL = ctypes.CFUNCTYPE(ctypes.c_double, *[ctypes.c_void_p] * 6, ctypes.c_ssize_t, *[ctypes.c_double] * 9)


@cache
def compiled(
    formula: str, around: str, double: bool, for_pred: bool, for_target: bool, weighted: bool, summed: bool
) -> Callable[..., float] | None:
    """A kernel, from numba's cache on disk where it is there; None where it cannot be compiled.

    Parameters
    ----------
    formula
        A name of :data:`~nearfar_iou.compiled.formulas.PENALTIES` or :data:`~nearfar_iou.compiled.formulas.WHOLE`.
    around
        What is made of it: ``"alpha"``, ``"focal"``, ``"inner"``, or ``""`` for itself.
    double
        Whether boxes are float64, not float32.
    for_pred, for_target
        Of what a gradient is wanted.
    weighted
        Whether each box has a weight.
    summed
        Whether the losses' sum is wanted, not each of them.
    """
    array, number = types.CPointer(types.float64 if double else types.float32), types.float64
    signature = number(*[array] * 6, types.intp, *[number] * 9)
    loop = _loop(formula, around, double, for_pred, for_target, weighted, summed)
    return compiled_as(CALL, signature, loop, formula)


@scalar
def _put(first: Any, second: Any, third: Any, fourth: Any, gradient: Any, count: int) -> None:
    """Four rows into the columns of a gradient."""
    for i in range(count):
        gradient[i, 0], gradient[i, 1], gradient[i, 2], gradient[i, 3] = first[i], second[i], third[i], fourth[i]


def _loop(
    name: str, around: str, double: bool, for_pred: bool, for_target: bool, has_weights: bool, summed: bool
) -> Callable[..., float]:
    """The kernel before it is compiled; what it closes over are constants to the compiler, and its name in the cache.

    Extents follow from coordinates by a matrix, ``low = a c₀ + b c₂`` and ``high = c c₀ + d c₂`` along x and likewise
    along y, so that every box format is the same code.
    """
    real = np.float64 if double else np.float32
    tiny_number = float(np.finfo(real).tiny)
    whole = name in WHOLE
    formula = (WHOLE if whole else PENALTIES)[name]
    alpha, focal, inner = (around == each for each in ("alpha", "focal", "inner"))
    sources = SOURCES

    def kernel(preds, targets, weights, values, by_preds, by_targets, n, a, b, c, d, n0, n1, n2, n3, s):  # type: ignore[no-untyped-def]
        sources  # noqa: B018  # a closed-over name is part of the cache's key
        all_pred, all_target = carray(preds, (n, 4)), carray(targets, (n, 4))
        all_by_pred, all_by_target = carray(by_preds, (n, 4)), carray(by_targets, (n, 4))
        all_weights, all_values = carray(weights, (n,)), carray(values, (n,))
        matrix, numbers = (real(a), real(b), real(c), real(d)), (n0, n1, n2)
        one, tiny, outer, steep = real(1), real(tiny_number), real(n3), real(s)
        more = (real(0), real(0), real(0), real(0))
        # Rows of a block's results: the loss, the gradient by the prediction, that by the target. Written to one place
        # first, since a loop that writes to several is not vectorised: it would have to be asked whether they overlap.
        found = np.empty((9, BLOCK), real)
        loss, p0, p1, p2, p3 = found[0], found[1], found[2], found[3], found[4]
        t0, t1, t2, t3 = found[5], found[6], found[7], found[8]
        total = 0.0
        for start in range(0, n, BLOCK):
            # An index that might be negative would count from the end, and could not be vectorised.
            count = np.uintp(min(BLOCK, n - start))
            pred, target, weight = all_pred[start:], all_target[start:], all_weights[start:]
            for i in range(count):
                p = Box(repaired(pred[i, 0], pred[i, 2], matrix, real), repaired(pred[i, 1], pred[i, 3], matrix, real))
                t = Box(
                    repaired(target[i, 0], target[i, 2], matrix, real),
                    repaired(target[i, 1], target[i, 3], matrix, real),
                )
                pair = compare(measure(p.x, t.x, real), measure(p.y, t.y, real), tiny)
                measured = formula(pair, real, numbers)
                if whole:
                    value, slopes = measured
                elif alpha:
                    value, slopes = combined.alpha(pair, measured, outer, real)
                elif inner:
                    within = combined.inner(p, t, outer, tiny, real)
                    value, slopes = combined.plain(measured, within.miss, real(0), real)
                else:
                    value, slopes = combined.plain(measured, pair.miss, -one, real)
                if focal:
                    importance = pair.iou**outer
                    value, slopes = value * importance, weighted(slopes, importance)
                cost_x, by_pred_x, by_target_x = folds(p.x, t.x, real)
                cost_y, by_pred_y, by_target_y = folds(p.y, t.y, real)
                value = value + (cost_x + cost_y)
                w = steep
                loss[i] = value
                if has_weights:
                    w = w * weight[i]
                    loss[i] = value * weight[i]
                if for_pred:
                    if inner:
                        more = combined.by_inner(within, outer, False, real)
                    g = by_coordinates(pair, p, (by_pred_x, by_pred_y), slopes, more, matrix, False, real)
                    p0[i], p1[i], p2[i], p3[i] = g[0] * w, g[1] * w, g[2] * w, g[3] * w
                if for_target:
                    if inner:
                        more = combined.by_inner(within, outer, True, real)
                    g = by_coordinates(pair, t, (by_target_x, by_target_y), slopes, more, matrix, True, real)
                    t0[i], t1[i], t2[i], t3[i] = g[0] * w, g[1] * w, g[2] * w, g[3] * w
            if summed:
                for i in range(count):
                    total += loss[i]
            else:
                values_here = all_values[start:]
                for i in range(count):
                    values_here[i] = loss[i]
            if for_pred:
                _put(p0, p1, p2, p3, all_by_pred[start:], count)
            if for_target:
                _put(t0, t1, t2, t3, all_by_target[start:], count)
        return total

    return kernel
