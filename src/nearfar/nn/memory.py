"""Memory for large results."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["empty_like"]

#: Bytes from which on NumPy asks Linux for pages of 2 MB.
LARGE = 2**22
#: Bytes of a cache line, which torch's own memory begins with.
LINE = 64


def empty_like(tensor: Tensor) -> Tensor:
    """Uninitialised memory for the gradient of a large tensor, contiguous, as ``torch.empty_like`` gives it.

    Of memory that is new each step the first touch costs more than what is written: on the CPU large tensors are taken
    from NumPy, which asks for huge pages, and are touched in a fraction of the time. Such a tensor cannot be resized.
    """
    size = tensor.numel() * tensor.itemsize
    if tensor.device.type != "cpu" or size < LARGE or type(tensor) not in (Tensor, torch.nn.Parameter):
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)
    if torch.compiler.is_compiling():
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)
    room = np.empty(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return torch.from_numpy(room[start : start + size]).view(tensor.dtype).view(tensor.shape)
