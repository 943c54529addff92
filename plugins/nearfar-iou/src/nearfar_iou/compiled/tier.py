"""Which tier computes box losses: kernels compiled by numba where that is installed and fits, torch everywhere else.

On a GPU it is kernels of Triton's, see :mod:`nearfar_iou.fused`, which are written from the same formulas.

The two give the same results, so nothing but time depends on which it is. Of a process it is decided at the first loss
and not by how many follow: a resumed run takes the same tier as one that was never interrupted, to the last bit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Formula", "eager_only", "fits", "kernels", "plain"]

logger = logging.getLogger(__name__)

_eager_only = False


class Formula(NamedTuple):
    """How the compiled tier computes a loss.

    Attributes
    ----------
    name
        Of a formula in :mod:`nearfar_iou.compiled.formulas`.
    numbers
        Its parameters.
    around
        What another loss makes of it, ``"alpha"``, ``"focal"`` or ``"inner"``; ``""`` for the loss itself.
    number
        The parameter of that.
    """

    name: str
    numbers: tuple[float, float, float] = (0.0, 0.0, 0.0)
    around: str = ""
    number: float = 0.0


@contextmanager
def eager_only() -> Iterator[None]:
    """Within it every loss of the process is computed by torch: to compare the two."""
    global _eager_only
    before, _eager_only = _eager_only, True
    try:
        yield
    finally:
        _eager_only = before


@cache
def kernels() -> Any:
    """The module of kernels, or None where numba cannot be used."""
    try:
        from numba import config

        if config.DISABLE_JIT:
            return None
        from nearfar_iou.compiled import kernels as module
    except Exception as error:  # not installed, or not for this version of numpy, which it finds out in many ways
        logger.debug("box losses are computed by torch alone: %s", error)
        return None
    return module


def fits(*tensors: Tensor) -> bool:
    """Whether kernels can read these: plain numbers in the memory of the CPU, and nobody watches what is done."""
    for each in tensors:  # a generator would cost more than what it asks
        if not each.is_cpu:
            return False
    return plain(*tensors) and kernels() is not None


def plain(*tensors: Tensor) -> bool:
    """Whether a kernel may read the memory of these instead of asking torch."""
    for each in tensors:
        if type(each) not in _PLAIN or each.is_neg():
            return False
    return (
        not _eager_only
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
    )


#: A subclass may hold its numbers elsewhere, or none.
_PLAIN = (Tensor, nn.Parameter)
