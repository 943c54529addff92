"""Classes a block at a time, so that nothing of size batch × classes is held."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["LOG2_E", "add_powers", "blocks", "held", "own_columns"]

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
    at = (labels - block.start)[:, None]
    column = at.clamp(0, block.stop - block.start - 1)
    return column, column == at


def add_powers(top: Tensor, total: Tensor, exponents: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Sums of powers of 2, (n,), kept as the greatest exponent so far and a sum of powers of what all are less than it.

    Those of a block, of two dimensions of which ``dim`` is summed over, are added; they are written to.
    """
    # Of a block in which all are −inf there is nothing to sum: −inf less itself were not a number.
    higher = torch.maximum(top, exponents.amax(dim)).clamp_min_(torch.finfo(top.dtype).min)
    powers = exponents.sub_(higher.unsqueeze(dim)).exp2_().sum(dim)
    return higher, total * (top - higher).exp2() + powers
