"""A few anchors at a time, as many as a processor works on without waiting for memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from nearfar_pair.sides import Sides

__all__ = ["alike", "slices", "slices_of"]

# Elements of a few rows: two buffers of 1 MB stay in the caches of a CPU, and with smaller ones calling torch costs
# more than is gained; on a GPU launching a kernel costs more than its work below this.
CPU_ELEMENTS, GPU_ELEMENTS = 2**18, 2**22


def slices(sides: Sides) -> Iterator[slice]:
    """A few anchors after another."""
    return slices_of(*sides.shape, sides.device)


def slices_of(n: int, m: int, device: torch.device) -> Iterator[slice]:
    """The same of n anchors and m references."""
    elements = CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS
    return alike(n, max(1, elements // max(1, m)))


def alike(n: int, most: int) -> Iterator[slice]:
    """As few slices of n rows as have no more than ``most`` each, none more than one row longer than another.

    The first is no shorter than any. Not as many full ones as there are: a product of one row that is left rounds
    otherwise than those of many, and equal numbers would come out unequal.
    """
    count = -(-n // most)
    bounds = [0, *(-(-i * n // count) for i in range(1, count + 1))]
    return (slice(start, stop) for start, stop in itertools.pairwise(bounds))
