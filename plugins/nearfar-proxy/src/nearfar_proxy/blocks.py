"""Classes a block at a time, so that nothing of size batch × classes is held."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["LOG2_E", "blocks", "held", "own_columns"]

#: Powers of 2 are computed several times as fast as those of e: e^x is 2^(x log₂ e).
LOG2_E = 1 / math.log(2)

#: Rows of a matrix that the kernels of products take at once: blocks leave none over.
WHOLE = 16
#: Elements of batch × classes that are held at once: what stays in a processor's cache, and what keeps a GPU busy.
_HELD = {"cpu": 2**18, "cuda": 2**24}


def held(vectors: Tensor) -> int:
    """How many numbers are held at once on the device of some."""
    return _HELD.get(vectors.device.type, 2**22)


def blocks(n: int, vectors: Tensor) -> Iterator[slice]:
    """Slices of the rows of ``vectors`` (num_classes, d), for a batch of ``n``."""
    step = max(1, held(vectors) // max(n, 1))
    if step > WHOLE:
        step -= step % WHOLE
    for start in range(0, len(vectors), step):
        yield slice(start, min(start + step, len(vectors)))


def own_columns(labels: Tensor, block: slice) -> tuple[Tensor, Tensor]:
    """(n, 1) the column of each sample's own class in a block, any where it is in another, and whether it is inside."""
    column = labels - block.start
    inside = (column >= 0) & (column < block.stop - block.start)
    return torch.where(inside, column, 0)[:, None], inside[:, None]
