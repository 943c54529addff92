"""Full precision for what sums and exponentiates, whatever surrounds it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["full_precision", "raised"]


@contextlib.contextmanager
def full_precision(tensor: object) -> Iterator[None]:
    """Keep autocast away from work on the device of ``tensor``; half precision is not enough for sums over a batch."""
    if not isinstance(tensor, Tensor) or tensor.device.type == "meta":
        yield
        return
    with torch.autocast(tensor.device.type, enabled=False):
        yield


def raised(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
