"""The k-th greatest of rows of numbers that are computed a block of columns at a time and never held together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from nearfar_proxy.ranks import Share

__all__ = ["kth_greatest"]

#: Bits that are found in one pass.
DIGIT = 11
_WHOLE = {torch.float32: torch.int32, torch.float64: torch.int64}


def kth_greatest(
    columns: Callable[[], Iterable[Tensor]], rows: int, k: int, like: Tensor, share: Share | None
) -> Tensor:
    """The k-th greatest number of each row, (rows,), exactly.

    Numbers are sorted by their bits, eleven in a pass, the most significant first: three passes in float32, six in
    float64. What is held is a count for each row and each value of a digit.

    Parameters
    ----------
    columns
        Begins a pass: blocks (rows, any), the same ones in each.
    rows, k
        How many, and which; there are as many columns at least, those of all ranks together.
    like
        Of the dtype and on the device of the blocks.
    share
        The ranks that have columns each; None where this process has all.
    """
    whole = _WHOLE[like.dtype]
    sign = torch.iinfo(whole).bits - 1
    left = torch.full((rows, 1), k, dtype=torch.int64, device=like.device)
    found = torch.zeros(rows, 1, dtype=whole, device=like.device)
    above = sign + 1
    while above:
        width = min(DIGIT, above)
        below = above - width
        first = above == sign + 1
        counts = torch.zeros(rows, 2**width, dtype=torch.int32, device=like.device)
        for block in columns():
            key = _ordered(block.view(whole), sign)
            digit = (key >> below) & (2**width - 1)
            if first:
                digit ^= 2 ** (width - 1)  # the first bit is the sign, and 0 of what is positive
                counted = torch.ones_like(digit)
            else:
                counted = (key >> above) == found
            counts.scatter_add_(1, digit.long(), counted.int())
        if share is not None:
            share.sum(counts)
        # Of how many the digit is at least so great, beginning with the greatest.
        atop = counts.flip(1).cumsum(1)
        place = (atop < left).sum(1, keepdim=True)
        left = left - torch.where(place > 0, atop.gather(1, (place - 1).clamp_min(0)), 0)
        digit = (2**width - 1 - place).to(whole)
        if first:
            digit = digit - 2 ** (width - 1)
        found = (found << width) | digit
        above = below
    return _ordered(found, sign).view(like.dtype)[:, 0]


def _ordered(bits: Tensor, sign: int) -> Tensor:
    """The bits of numbers as whole numbers of the same order, and back: of negative ones all but the sign turn."""
    return bits ^ ((bits >> sign) & torch.iinfo(bits.dtype).max)
