"""Pairs whose distances are spread evenly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection
from nearfar_pair.bins import Bins
from nearfar_pair.miners.drawn import Draws
from nearfar_pair.mining import Passes
from nearfar_pair.sides import Rows

__all__ = ["UniformHistogram"]


class UniformHistogram(Draws, Miner):
    r"""Of positive and of negative pairs each, as many drawn from every bin of their distances.

    .. math:: P(i \mid b) = \frac{1}{|b|}, \quad i \in b, \qquad b = \{i : l_b \le d_i < l_{b+1}\}

    The bins divide what is between the least and the greatest distance evenly; the last one has its upper end.

    Parameters
    ----------
    num_bins : int
        [1..inf] How many bins there are; 100 as in pytorch-metric-learning.
    pos_per_bin, neg_per_bin : int
        [0..inf] How many pairs are drawn from each bin that has any; 10 as there.
    seed : int
        What the draws start from; the draws of a call come from it and from how many calls there were before.
    distance : nn.Module, optional
        What d is; unset, that of the loss, and Euclidean without one.

    Raises
    ------
    ArgumentError
        A number is out of its range, or no integer.

    Notes
    -----
    Draws are independent, so that a pair may come twice: all bins count the same, however few pairs they have. The
    number of calls is in the state, so that a resumed run draws what an uninterrupted one does. In eval mode calls are
    not counted: the same batch gives the same draws.
    """

    def __init__(
        self,
        num_bins: int = 100,
        pos_per_bin: int = 10,
        neg_per_bin: int = 10,
        *,
        seed: int = 0,
        distance: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance)
        for name, value, least in (
            ("num_bins", num_bins, 1),
            ("pos_per_bin", pos_per_bin, 0),
            ("neg_per_bin", neg_per_bin, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ArgumentError(f"{name} must be a whole number of at least {least}; got {value!r}")
        self.num_bins, self.pos_per_bin, self.neg_per_bin = num_bins, pos_per_bin, neg_per_bin
        self.count_from(seed)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        generator = self.generator()
        passes = Passes(batch, distance)
        positive = self._spread(passes, _positives, self.pos_per_bin, generator)
        return IndexSelection((*positive, *self._spread(passes, _negatives, self.neg_per_bin, generator)))

    def _spread(
        self, passes: Passes, side: Callable[[Rows], Side], each: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        # As many draws for every bin, of which those of empty ones are left out: no number depends on another bin.
        drawn = torch.rand(self.num_bins, each, generator=generator, dtype=torch.float64)
        bins = Bins.of((side(rows)[:2] for rows in passes), self.num_bins)
        if bins is None:
            none = torch.zeros(0, dtype=torch.int64)
            return none, none
        # Of each row how many pairs are in each bin: the pair drawn is some pair of some row.
        by_row = torch.cat([bins.sizes(*side(rows)[:2]) for rows in passes]).cumsum(0)
        bin_of, _ = torch.where(by_row[-1][:, None].expand(-1, each) > 0)
        rank = (drawn.to(by_row.device) * by_row[-1][:, None])[by_row[-1] > 0].long().flatten()
        row = torch.searchsorted(by_row.T.contiguous()[bin_of], rank[:, None], right=True)[:, 0]
        rank = rank - torch.where(row > 0, by_row[(row - 1).clamp_min(0), bin_of], 0)
        column = torch.empty_like(row)
        for rows in passes:
            here = torch.where((row >= rows.anchors.start) & (row < rows.anchors.stop))[0]
            column[here] = bins.find(*side(rows), row[here] - rows.anchors.start, bin_of[here], rank[here])
        return row, column

    def extra_repr(self) -> str:
        bins_of = f"num_bins={self.num_bins}, pos_per_bin={self.pos_per_bin}, neg_per_bin={self.neg_per_bin}"
        return f"{bins_of}, seed={self.seed}"


#: (r, w) distances, which of them are of pairs, and (r, w) which references they are to, None for every one in order.
Side = tuple[Tensor, Tensor, Tensor | None]


def _positives(rows: Rows) -> Side:
    return rows.d_ap, rows.valid, rows.positives


def _negatives(rows: Rows) -> Side:
    return rows.d_an, rows.is_negative, None
