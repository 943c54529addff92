"""Values in even bins, a few rows of them at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Bins"]

#: How many elements of rows that something was drawn from are looked at at a time.
ELEMENTS = 2**18
#: What is further from 0 counts as that far.
_LARGEST = torch.finfo(torch.float64).max / 4


class Bins(NamedTuple):
    """Even bins between the least and the greatest of some values.

    Attributes
    ----------
    low, width
        Where the first one begins, and how wide each is: 0-d float64.
    number
        How many there are.
    """

    low: Tensor
    width: Tensor
    number: int

    @classmethod
    def of(cls, values: Iterable[tuple[Tensor, Tensor]], count: int) -> Bins | None:
        """Those of values (r, w) of which not all count; None where there is none."""
        ends = []
        for d, counts in values:
            d = _finite(d)
            ends.append((d.masked_fill(~counts, math.inf).amin(), d.masked_fill(~counts, -math.inf).amax()))
        if not ends:
            return None
        least, greatest = (torch.stack(column) for column in zip(*ends, strict=True))
        low, high = least.amin(), greatest.amax()
        return None if bool(low > high) else cls(low, (high - low) / count, count)

    def places(self, d: Tensor, counts: Tensor) -> Tensor:
        """(r, w) the bin of each value, beyond the last for what does not count."""
        place = (_finite(d) - self.low) / self.width
        place = torch.where(self.width > 0, place, 0).clamp_(0, self.number - 1).long()
        return place.masked_fill_(~counts, self.number)

    def sizes(self, d: Tensor, counts: Tensor) -> Tensor:
        """(r, bins) how many values of each row are in each."""
        place = self.places(d, counts)
        sizes = place.new_zeros(len(d), self.number + 1)
        return sizes.scatter_add_(1, place, torch.ones_like(place))[:, : self.number]

    def find(
        self, d: Tensor, counts: Tensor, others: Tensor | None, row: Tensor, bin_of: Tensor, rank: Tensor
    ) -> Tensor:
        """(t,) which references those of such a rank are among the values of a row in a bin."""
        place = self.places(d, counts)
        found = []
        step = max(1, ELEMENTS // d.shape[1])
        for start in range(0, len(row), step):
            some = slice(start, start + step)
            before = (place[row[some]] == bin_of[some, None]).cumsum(1)
            found.append(torch.searchsorted(before, rank[some, None], right=True)[:, 0])
        column = torch.cat(found) if found else row
        return column if others is None else others[row, column]


def _finite(d: Tensor) -> Tensor:
    """Values in float64 of which any two have a finite difference."""
    return d.double().nan_to_num().clamp(-_LARGEST, _LARGEST)
