"""Count how often a call would make the host wait for a GPU, without one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from nearfar.testing.operators import OperatorMode, operator_name, where

__all__ = ["waits", "waits_on_a_gpu"]

_aten = torch.ops.aten

#: Operators that a GPU has to finish before the host knows the size or the value of their result → how often.
_WAITS: dict[Any, int] = {
    _aten._local_scalar_dense: 1,  # item, bool, int, float
    _aten.equal: 1,
    _aten.is_nonzero: 1,
    _aten.nonzero: 1,
    _aten.masked_select: 1,
    _aten._unique2: 1,
    _aten.unique_dim: 1,
    _aten.unique_consecutive: 1,
    _aten.bincount: 2,  # the least, which must not be negative, and the greatest
    _aten.histc: 1,
    _aten.repeat_interleave: 1,
}
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index}
_READS = {Tensor.cpu, Tensor.tolist, Tensor.numpy, Tensor.__array__}
_FROM_DATA = {torch.tensor, torch.as_tensor, Tensor.new_tensor}
_GPU = torch.device("cuda", 0)
_GETTERS: dict[Any, Any] = {
    Tensor.device.__get__: _GPU,
    Tensor.is_cuda.__get__: True,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: False,  # type: ignore[attr-defined]
    Tensor.get_device: 0,
}


def waits(call: Callable[[], Any]) -> list[str]:
    """Where ``call``, on the CPU, does what would make the host wait for a GPU; once for each time.

    While it is counted tensors say that they are on a GPU, so that a part takes the branch it would take there: a
    check that it makes on the CPU alone, because it would stall a GPU, does not count. A part that cannot go on with
    such tensors, for want of a real GPU, is counted as it runs on the CPU.
    """
    for pretends in (True, False):
        counted = _Waits()
        try:
            with _OnAGpu(counted.found) if pretends else contextlib.nullcontext(), counted:
                call()
        except Exception:
            if not pretends:
                raise
        else:
            break
    return counted.found


class _Waits(OperatorMode):  # type: ignore[no-untyped-call]
    """Sees every operator, also those of backward passes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(function, "overloadpacket", function)
        times = _WAITS.get(packet, 0)
        if packet is _aten.repeat_interleave and kwargs.get("output_size") is not None:
            times = 0
        elif packet in _INDEXING:
            times = _waits_for_masks(args)
        self.found += [f"{operator_name(function)} {where()}"] * times
        return function(*args, **kwargs)


def _waits_for_masks(args: Any) -> int:
    """A boolean mask is made an index, whose length is asked for; but a number is filled in without one."""
    masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
    fills = len(args) > 2 and args[2].numel() == 1 and not (len(args) > 3 and args[3])
    return 0 if fills and len(masks) == len(args[1]) == 1 else len(masks)


class _OnAGpu(TorchFunctionMode):
    """Lets tensors say that they are on a GPU, and what asks for one make its tensors on the CPU.

    A tensor of Python's numbers, or one that was taken to the CPU, is on the CPU as it would be; taking either way is
    waited for.
    """

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found
        self._here = WeakIdKeyDictionary()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_here = bool(args) and self._is_here(args[0])
        if function in _GETTERS:
            return function(*args) if is_here else _GETTERS[function]
        wanted = self._wanted(function, args, kwargs)
        result = function(*map(_real, args), **{name: _real(value) for name, value in kwargs.items()})
        data = args[1:] if function is Tensor.new_tensor else args
        of_numbers = function in _FROM_DATA and not any(isinstance(value, Tensor) for value in data[:1])
        goes = wanted == "cuda" and (is_here or of_numbers)
        comes = not is_here and (function in _READS or (wanted == "cpu" and function is Tensor.to))
        if goes or comes:
            self._found.append(f"{getattr(function, '__name__', function)} {where()}")
        if isinstance(result, Tensor) and (comes or (of_numbers and wanted != "cuda")):
            # Not the tensor itself: on the CPU taking it there gives the same one back.
            result = result.view_as(result) if any(result is given for given in args) else result
            self._here[result] = True
        return result

    def _is_here(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value in self._here

    def _wanted(self, function: Any, args: Any, kwargs: Any) -> str:
        """The kind of device that a call asks for; empty where it asks for none."""
        for value in (*args, *kwargs.values()):
            if (device := _device(value)) is not None:
                return device.type
        if function is Tensor.to and isinstance(args[-1], Tensor) and len(args) > 1:
            return "cpu" if self._is_here(args[-1]) else "cuda"
        return "cuda" if function in (Tensor.cuda, Tensor.new_tensor) else ""


def _device(value: Any) -> torch.device | None:
    """The device that an argument names."""
    if isinstance(value, str) and value.partition(":")[0] in ("cpu", "cuda"):
        return torch.device(value)
    return value if isinstance(value, torch.device) else None


def _real(value: Any) -> Any:
    """The argument with the CPU in place of the GPU it names."""
    return "cpu" if (device := _device(value)) is not None and device.type == "cuda" else value


def waits_on_a_gpu(call: Callable[[], Any]) -> int:
    """How often ``call`` makes the host wait for the GPU that it runs on, as torch itself tells."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing" in str(warning.message) for warning in said)
