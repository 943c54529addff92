"""Places of many numbers among sorted ones."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Places"]

#: Cells for each of the sorted numbers, and at most.
CELLS, MOST = 16, 2**20
#: From how many of the sorted numbers in one cell on they are searched by bisection.
CROWDED = 16


class Places:
    """How many of some sorted numbers are not greater than each of many others.

    Bisection takes a cache miss and a wrong guess at each step, 250 ns among ten thousand. Even cells that know how
    many of the numbers lie below them leave a few to compare with, at a fortieth of that.

    Parameters
    ----------
    among
        (k,) numbers in ascending order, each once, k at least 1.
    """

    def __init__(self, among: Tensor) -> None:
        self._among = among
        self._cells = min(MOST, CELLS * len(among))
        self._low = among[0]
        self._scale = self._cells / (among[-1] - among[0]).clamp_min(torch.finfo(among.dtype).tiny)
        sizes = torch.bincount(self._cell(among), minlength=self._cells)
        self._most = int(sizes.max())
        self._below = sizes.cumsum(0) - sizes
        # What no number is above stands behind the last.
        self._padded = torch.cat([among, among.new_full((1,), torch.nan)])

    def __len__(self) -> int:
        return len(self._among)

    def of(self, x: Tensor) -> Tensor:
        """The places (…) of numbers (…), int64; that of what is no number is the last."""
        if self._most > CROWDED or not bool(torch.isfinite(self._scale)):
            return torch.searchsorted(self._among, x, right=True)
        place = self._below.take(self._cell(x))
        for _ in range(self._most):
            place += self._padded.take(place) <= x
        return place.masked_fill_(x != x, len(self._among))

    def _cell(self, x: Tensor) -> Tensor:
        # Of two numbers the greater is in no lower cell: every step of this is monotonous.
        return ((x - self._low) * self._scale).clamp(0, self._cells - 1).nan_to_num_(0).long()
