"""A few anchors at a time, as many as a processor works on without waiting for memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from nearfar_pair.sides import Sides

__all__ = ["parts", "slices", "slices_of"]

# Elements of a few rows: two buffers of 1 MB stay in the caches of a CPU, and with smaller ones calling torch costs
# more than is gained; on a GPU launching a kernel costs more than its work below this.
CPU_ELEMENTS, GPU_ELEMENTS = 2**18, 2**22


def slices(sides: Sides) -> Iterator[slice]:
    """A few anchors after another."""
    return slices_of(*sides.shape, sides.device)


def slices_of(n: int, m: int, device: torch.device) -> Iterator[slice]:
    """The same of n anchors and m references."""
    elements = CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS
    step = max(1, elements // max(1, m))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def parts(n: int, most: int) -> Iterator[slice]:
    """Slices of n rows, as many as fit, no more than ``most`` each; the last two share what is left.

    A product of one row that would be left over rounds otherwise than those of many, and equal numbers would come out
    unequal.
    """
    starts = [*range(0, n, most)]
    if len(starts) > 1:
        starts[-1] = (starts[-2] + n + 1) // 2
    return (slice(start, stop) for start, stop in itertools.pairwise([*starts, n]))
