"""Measure what a call costs: how many bytes it keeps at once, and how often it would make the host wait for a GPU.

Bytes are the allocator's own: on the CPU the events that torch's profiler records, on a GPU the allocator's counter.
Storages counted as the results of operators would miss what a kernel needs meanwhile and count what several views
share, so they are only asked who allocates, never how much.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.profiler import profile  # the backend of torch.profiler, which loads half of torch besides
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["Allocation", "allocations", "peak_bytes", "waits", "waits_on_a_gpu"]


# ---- memory


def peak_bytes(call: Callable[[], Any], device: str = "cpu") -> int:
    """The most bytes that ``call`` keeps at once, beyond what was kept before it."""
    if device == "cpu":
        return _peak_on_the_cpu(call)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    highest: int = torch.cuda.max_memory_allocated()
    return highest - before


def _peak_on_the_cpu(call: Callable[[], Any]) -> int:
    with _quiet_profiler(), _no_collection():
        with profile(use_kineto=True, profile_memory=True) as recorded:
            kept = call()
        del kept
    assert recorded.kineto_results is not None
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):  # a stable sort: ties stay as they came
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@contextlib.contextmanager
def _quiet_profiler() -> Iterator[None]:
    """The profiler's library writes to the terminal, unless told otherwise before it is first used."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "99")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage of earlier calls, collected meanwhile, would count as memory given back."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Allocation(NamedTuple):
    """What one operator allocated: how many bytes, and where in the source it was called."""

    bytes: int
    operator: str
    where: str

    def __str__(self) -> str:
        return f"{readable(self.bytes)} by {self.operator} {self.where}"


def allocations(call: Callable[[], Any], most: int = 3) -> list[Allocation]:
    """The largest results of operators in ``call``, one for each line of source: who allocates, roughly."""
    with _Allocations() as found:
        call()
    largest: dict[str, Allocation] = {}
    for allocation in found.made:
        if allocation.where not in largest or largest[allocation.where].bytes < allocation.bytes:
            largest[allocation.where] = allocation
    return sorted(largest.values(), key=lambda allocation: -allocation.bytes)[:most]


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that does not load torch's compiler, which takes seconds, to be left out by it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _Allocations(_Mode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[Allocation] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        given = {_storage(value) for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor)}
        for result in found if isinstance(found, tuple | list) else (found,):
            if isinstance(result, Tensor) and _storage(result) not in given:
                self.made.append(Allocation(result.untyped_storage().nbytes(), _name(function), _where()))
        return found


def _storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def readable(size: float) -> str:
    """A number of bytes as people read it."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


# ---- waiting

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


class _Waits(_Mode):  # type: ignore[no-untyped-call]
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
        self.found += [f"{_name(function)} {_where()}"] * times
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
        self._on_the_cpu = WeakIdKeyDictionary()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_cpu = bool(args) and isinstance(args[0], Tensor) and args[0] in self._on_the_cpu
        if function in _GETTERS:
            return function(*args) if is_cpu else _GETTERS[function]
        wanted = [d for d in map(_device, (*args, *kwargs.values())) if d is not None]
        args, kwargs = tuple(map(_real, args)), {name: _real(value) for name, value in kwargs.items()}
        result = function(*args, **kwargs)
        on_gpu = wanted[0].type != "cpu" if wanted else function in (Tensor.cuda, Tensor.new_tensor)
        goes, comes = on_gpu and (is_cpu or function in _FROM_DATA), function in _READS and not is_cpu
        leaves = function is Tensor.to and bool(wanted) and not on_gpu and not is_cpu
        if goes or comes or leaves:
            self._found.append(f"{getattr(function, '__name__', function)} {_where()}")
        if isinstance(result, Tensor) and (leaves or function is Tensor.cpu or (function in _FROM_DATA and not on_gpu)):
            # Not the tensor itself: on the CPU taking it there gives the same one back.
            result = result.view_as(result) if any(result is given for given in args) else result
            self._on_the_cpu[result] = True
        return result


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


def _name(function: Any) -> str:
    return str(getattr(function, "overloadpacket", function))


_OURS = tuple(str(Path(path).parent) + os.sep for path in (__file__, torch.__file__))


def _where() -> str:
    """The line of source that called the operator: the innermost outside of torch and of what measures."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "_engine_run_backward":
            return "in the backward pass"
        if not file.startswith((*_OURS, "<")):
            return f"at {Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "somewhere"
