"""Memory for large gradients."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["gradient_like"]

#: Bytes from which on memory is kept.
LARGE = 2**22
#: Bytes of a cache line, which torch's own memory begins with.
LINE = 64


@dataclass(frozen=True, slots=True)
class _Room:
    """Memory, and whoever was given it last, which a tensor holds on to as long as it lives."""

    memory: npt.NDArray[np.uint8]
    user: weakref.ref[npt.NDArray[np.uint8]]


#: By the storage of a weight, with which they go.
_rooms = WeakIdKeyDictionary(ref_type=weakref.ref)
_lock = threading.Lock()


def gradient_like(weight: Tensor) -> Tensor:
    """Uninitialised memory for the gradient of a weight, contiguous, as ``torch.empty_like`` gives it.

    On the CPU that of a large one is kept for as long as the weight lives, and given again once nobody has the gradient
    any more, as after ``zero_grad()``: to touch new memory for the first time costs several times what is written, and
    torch would take new memory each step. Such a tensor cannot be resized.
    """
    size = weight.numel() * weight.itemsize
    if weight.device.type != "cpu" or size < LARGE or type(weight) not in (Tensor, torch.nn.Parameter):
        return torch.empty_like(weight, memory_format=torch.contiguous_format)
    if torch.compiler.is_compiling():
        return torch.empty_like(weight, memory_format=torch.contiguous_format)
    with _lock:
        storage = weight.untyped_storage()
        room: _Room | None = _rooms.get(storage)  # type: ignore[no-untyped-call]  # of torch
        if room is None or room.user() is not None or room.memory.nbytes != size + LINE:
            memory = np.empty(size + LINE, np.uint8)
        else:
            memory = room.memory
        start = -memory.ctypes.data % LINE
        user = memory[start : start + size]
        _rooms[storage] = _Room(memory, weakref.ref(user))
    return torch.from_numpy(user).view(weight.dtype).view(weight.shape)
