"""Measure how many bytes a call keeps at once, and what it leaves behind.

Bytes are the allocator's own: on the CPU the events that torch's profiler records, on a GPU the allocator's counter.
Storages counted as the results of operators would miss what a kernel needs meanwhile and count what several views
share, so they are only asked who allocates, never how much.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.profiler import profile  # the backend of torch.profiler, which loads half of torch besides

from nearfar.testing.operators import OperatorMode, operator_name, where

__all__ = ["Allocation", "allocations", "left_in_cycles", "peak_bytes", "readable"]


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


def left_in_cycles(call: Callable[[], Any]) -> list[Tensor]:
    """The tensors that ``call`` made and that, its result gone, only Python's cycle collector would free."""
    before = gc.get_debug()
    with _no_collection():
        gc.freeze()  # what was there before is not looked at, which also takes long
        try:
            call()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            return [found for found in gc.garbage if isinstance(found, Tensor)]
        finally:
            gc.set_debug(before)
            gc.garbage.clear()
            gc.unfreeze()


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


def most_elements(call: Callable[[], Any]) -> int:
    """The number of elements of the largest tensor that an operator gives in ``call``, its backward passes too."""
    found = _Largest()
    with found:
        call()
    return found.elements


class _Largest(OperatorMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for result in found if isinstance(found, tuple | list) else (found,):
            if isinstance(result, Tensor):
                self.elements = max(self.elements, result.numel())
        return found


class _Allocations(OperatorMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[Allocation] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        given = {_storage(value) for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor)}
        for result in found if isinstance(found, tuple | list) else (found,):
            if isinstance(result, Tensor) and _storage(result) not in given:
                self.made.append(Allocation(result.untyped_storage().nbytes(), operator_name(function), where()))
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
