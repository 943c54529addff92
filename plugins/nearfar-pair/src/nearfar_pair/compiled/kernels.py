"""Kernels by name: how each is called, by the address of what numba has compiled."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import types

from nearfar.nn.compiled import compiled_as
from nearfar_pair.compiled.loops.distances import columns
from nearfar_pair.compiled.loops.exponentials import soft
from nearfar_pair.compiled.loops.hardest import hardest, scatter
from nearfar_pair.compiled.loops.histograms import fast_ap
from nearfar_pair.compiled.loops.pairs import pair_slopes, pairs
from nearfar_pair.compiled.loops.points import finish, units
from nearfar_pair.compiled.loops.ranked import ranked
from nearfar_pair.compiled.loops.triplets import triplets

__all__ = ["compiled"]

#: What loops are made of, by which numba's cache names them: it only asks whether the file of the loop itself changed.
_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted((Path(__file__).parent / "loops").glob("*.py")))
).hexdigest()[:16]

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
    loop.__qualname__ = f"{name}_{_SOURCES}"
    called, inside = zip(*(_KINDS[letter] for letter in letters.replace(" ", "")), strict=True)
    return compiled_as(ctypes.CFUNCTYPE(None, *called), types.void(*inside), loop, name)
