"""Kernels that numba compiles for the CPU: when one may read tensors, and how it is made and called.

For plugins with such a tier beside that of torch. The two give the same results, so nothing but time depends on which
it is. Of a process it is decided at the first loss and not by how many follow: a resumed run takes the same tier as one
that was never interrupted, to the last bit.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["compiled_as", "eager_only", "is_plain", "kernels_of"]

logger = logging.getLogger(__name__)

_eager_only = False


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
def kernels_of(module: str) -> Any:
    """The module of kernels of this name, or None where numba cannot be used."""
    try:
        from numba import config

        return None if config.DISABLE_JIT else importlib.import_module(module)
    except Exception as error:  # not installed, or not for this version of numpy, which it finds out in many ways
        logger.debug("%s is not used, torch computes alone: %s", module, error)
        return None


def is_plain(*tensors: Tensor) -> bool:
    """Whether a kernel may read the memory of these instead of asking torch: plain numbers, and nobody watches."""
    for each in tensors:  # a generator would cost more than what it asks
        if type(each) not in _PLAIN or each.is_neg() or each._is_zerotensor() or torch._is_functional_tensor(each):
            return False
    return (
        not _eager_only
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
    )


#: A subclass may hold its numbers elsewhere, or none.
_PLAIN = (Tensor, nn.Parameter)


def compiled_as(call: Any, signature: Any, loop: Callable[..., Any], name: str) -> Callable[..., Any] | None:
    """A function compiled for a signature of numba's, to be called by its address as ``call``, a type of ctypes', says.

    It is kept on disk beside its source, or in the user's cache directory where that cannot be written. numba's own way
    from Python costs more than a small batch does. None where it cannot be compiled.
    """
    from numba import cfunc

    for keep in (True, False):
        try:
            kernel = cfunc(signature, cache=keep, fastmath={"nsz"}, error_model="numpy")(loop)
        except Exception as error:  # no directory can be written, what is in it cannot be read, numba has a defect
            logger.debug("%s cannot be compiled%s: %s", name, " and kept on disk" if keep else "", error)
            continue
        made: Callable[..., Any] = call(kernel.address)
        made.kept_alive = kernel  # type: ignore[attr-defined]
        return made
    return None
