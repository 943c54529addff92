"""The share of all pairs that is hardest, as a rule: the least of many numbers without having them all at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance
from nearfar_pair.mining import Passes
from nearfar_pair.pair_rules import DistanceRule
from nearfar_pair.sides import FAR, Rows

__all__ = ["Hardest"]

#: How many bits of a number are looked at in one pass.
BITS = 16


class Hardest(DistanceRule):
    """Of all positive pairs the share that is farthest apart, of all negative pairs the share that is nearest.

    Of equally hard pairs those come first whose anchor does, then whose other does.

    Parameters
    ----------
    batch, distance
        As of :class:`~nearfar_pair.pair_rules.DistanceRule`.
    share
        How many of a number of pairs are taken.
    """

    def __init__(self, batch: Batch, distance: Distance, share: Callable[[int], int]) -> None:
        super().__init__(batch, distance)
        passes = Passes(batch, distance)
        positives, negatives = map(share, _counted(passes))
        #: All rows, and which of their positives and negatives are chosen; None where they are too many to be kept.
        self._chosen: tuple[Rows, Tensor, Tensor] | None = None
        if passes.only is not None:
            far, near = _least(_farness(passes.only), positives), _least(_nearness(passes.only), negatives)
            self._chosen = passes.only, far, near
        else:
            self._far = _edge(passes, _farness, positives)
            self._near = _edge(passes, _nearness, negatives)

    def indices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self._chosen is None:
            return super().indices()
        rows, far, near = self._chosen
        (a1, p), (a2, n) = torch.where(far), torch.where(near)
        return a1, p if rows.is_wide else rows.positives[a1, p], a2, n

    def keep(self, rows: Rows) -> tuple[Tensor, Tensor]:
        if self._chosen is not None:
            every, far, near = self._chosen
            far = far[rows.anchors]
            return far.gather(1, rows.positives) if every.is_wide and not rows.is_wide else far, near[rows.anchors]
        start = rows.anchors.start
        return self._far.holds(_farness(rows), start), self._near.holds(_nearness(rows), start)


def _counted(passes: Passes) -> list[int]:
    """How many positive pairs there are, and how many negative ones; a GPU is asked once."""
    counts = [torch.stack([rows.num_positives.sum(), rows.num_negatives.sum()]) for rows in passes]
    if not counts:
        return [0, 0]
    found: list[int] = (counts[0] if len(counts) == 1 else torch.stack(counts).sum(0)).tolist()
    return found


class _Edge(NamedTuple):
    """Up to where the least of all numbers go; nothing of it is read from a GPU.

    Attributes
    ----------
    end
        (): the greatest that is taken, or a number between it and the next.
    anchor, ties
        (): from which row on those at the end are left out, and how many of them in this row are not.
    """

    end: Tensor
    anchor: Tensor
    ties: Tensor

    def holds(self, x: Tensor, start: int) -> Tensor:
        """Which of the numbers (r, m), of rows from ``start`` on, are among the least."""
        tied = x == self.end
        if not len(x):
            return tied
        row = (self.anchor - start).clamp(0, len(x) - 1)[None]
        first = tied.index_select(0, row)
        tied[:] &= (torch.arange(start, start + len(x), device=x.device) < self.anchor)[:, None]
        first &= (first.cumsum(1) <= self.ties) | (self.anchor != row + start)
        tied.index_copy_(0, row, first & (self.anchor >= start))
        # Not a comparison that is false of NaN: what is not a number must show in the loss.
        return tied | ~(x >= self.end)


def _farness(rows: Rows) -> Tensor:
    """(r, k) numbers that are least for the farthest positives, and FAR for what is none."""
    return -rows.d_ap


def _nearness(rows: Rows) -> Tensor:
    """(r, m) numbers that are least for the nearest negatives, and FAR for what is none."""
    return rows.d_an


def _least(x: Tensor, count: int) -> Tensor:
    """Which ``count`` of the numbers (n, m) are the least, of equals the first; what is no number is one of them."""
    if not count:
        return torch.zeros_like(x, dtype=torch.bool)
    flat = x.flatten()
    end = flat.kthvalue(count).values
    # Not comparisons that are false of NaN: what is not a number must show in the loss.
    found = ~(flat > end)
    # As where none beyond is equal; a GPU would be waited for.
    if x.device.type == "cpu" and int(found.count_nonzero()) == count:
        return found.view_as(x)
    less, tied = ~(flat >= end), flat == end
    return (less | (tied & (tied.cumsum(0) <= count - less.sum()))).view_as(x)


def _edge(passes: Passes, of: Callable[[Rows], Tensor], count: int) -> _Edge:
    """Where the ``count`` least numbers of all rows end, found by their highest bits first."""
    like = next((of(rows) for rows in passes), torch.zeros(0, 0))
    left = torch.full((), count, device=like.device)
    if not count:
        return _Edge(like.new_full((), -math.inf), 0 * left, 0 * left)
    bits = torch.finfo(like.dtype).bits
    # What is known of the number: its highest bits, as a whole number of their own.
    known, size = torch.zeros_like(left), left
    for shift in range(bits - BITS, -1, -BITS):
        sizes = left.new_zeros(2**BITS)
        for rows in passes:
            place = _ordered(of(rows)) >> shift
            counts = (place >> BITS) == known
            if shift == bits - BITS:  # the highest, of which half are below zero
                place, counts = place + 2 ** (BITS - 1), torch.ones_like(place)
            sizes.index_add_(0, (place & (2**BITS - 1)).flatten(), counts.long().flatten())
        summed = sizes.cumsum(0)
        found = torch.searchsorted(summed, left[None])
        size = sizes[found][0]
        left = left - (summed[found][0] - size)
        known = (known << BITS) + found[0] - (2 ** (BITS - 1) if shift == bits - BITS else 0)
    return _at(passes, of, _number(known, like.dtype), left, size)


def _at(passes: Passes, of: Callable[[Rows], Tensor], end: Tensor, left: Tensor, size: Tensor) -> _Edge:
    """The edge at a number that occurs ``size`` times, of which the first ``left`` are taken."""
    tied, beyond = [], []
    for x in map(of, passes):
        tied.append((x == end).sum(1))
        beyond.append(x.masked_fill(x <= end, FAR).amin())
    by_row, following = torch.cat(tied), torch.stack(beyond).amin()
    summed = by_row.cumsum(0)
    anchor = torch.searchsorted(summed, left[None])
    ties = left - (summed[anchor] - by_row[anchor])[0]
    # Between two numbers, so that what rounds otherwise where it is computed again falls on the same side.
    middle = end + (following.clamp_max(FAR / 2) - end) / 2
    is_between = (left == size) & (middle > end) & (middle < following)
    return _Edge(torch.where(is_between, middle, end), anchor[0], ties)


def _ordered(x: Tensor) -> Tensor:
    """Whole numbers in the order of x: its bits, those of negative ones turned round."""
    bits = torch.finfo(x.dtype).bits
    # 0 is added so that both zeros are one.
    whole = (x + 0).view(torch.int32 if bits == 32 else torch.int64).long()
    turned: Tensor = whole ^ ((whole >> (bits - 1)) & (2 ** (bits - 1) - 1))
    return turned


def _number(ordered: Tensor, dtype: torch.dtype) -> Tensor:
    """The number (), of which this is the whole number."""
    bits = torch.finfo(dtype).bits
    whole = torch.where(ordered < 0, ordered ^ (2 ** (bits - 1) - 1), ordered)
    number: Tensor = whole.to(torch.int32 if bits == 32 else torch.int64).view(dtype)
    return number
