"""Full precision for what sums and exponentiates, whatever surrounds it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["full_precision", "in_full_precision", "raised"]

_Result = TypeVar("_Result")


def full_precision(tensor: object) -> contextlib.AbstractContextManager[object]:
    """Keep autocast away from work on the device of ``tensor``; half precision is not enough for sums over a batch."""
    if not isinstance(tensor, Tensor) or tensor.device.type == "meta":
        return _NOTHING
    # Where it is not about, saying so takes as long as a small loss's matrix.
    if not torch.compiler.is_compiling() and not torch.is_autocast_enabled(tensor.device.type):
        return _NOTHING
    return torch.autocast(tensor.device.type, enabled=False)


_NOTHING = contextlib.nullcontext()


def in_full_precision(backward: Callable[..., _Result]) -> Callable[..., _Result]:
    """A hand-written ``backward(ctx, *grads)`` that autocast is kept away from.

    Its forward pass ran so; the backward pass runs in whatever surrounds the call of ``backward()``, which may be the
    autocast block itself.
    """

    @functools.wraps(backward)
    def run(ctx: Any, *grads: Tensor | None) -> _Result:
        with full_precision(next((grad for grad in grads if grad is not None), None)):
            return backward(ctx, *grads)

    return run


def raised(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
