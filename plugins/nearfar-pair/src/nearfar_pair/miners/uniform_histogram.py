"""Pairs whose distances are spread evenly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection, distance_matrix
from nearfar_pair.miners.drawn import Draws

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
        d = distance_matrix(distance, batch)
        positive = self._spread(d, batch.positive_mask(), self.pos_per_bin, generator)
        return IndexSelection((*positive, *self._spread(d, batch.negative_mask(), self.neg_per_bin, generator)))

    def _spread(self, d: Tensor, mask: Tensor, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        anchors, others = torch.where(mask)
        if not len(anchors):
            return anchors, others
        size, order = bins(d[anchors, others], self.num_bins)
        # As many draws for every bin, of which those of empty ones are left out: no number depends on another bin.
        drawn = torch.rand(self.num_bins, each, generator=generator, dtype=torch.float64).to(d.device)
        place = (drawn * size[:, None]).long() + (size.cumsum(0) - size)[:, None]
        chosen = order[place[size > 0].flatten()]
        return anchors[chosen], others[chosen]

    def extra_repr(self) -> str:
        bins_of = f"num_bins={self.num_bins}, pos_per_bin={self.pos_per_bin}, neg_per_bin={self.neg_per_bin}"
        return f"{bins_of}, seed={self.seed}"


def bins(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """How many of the values (k,) are in each of so many even bins, and their places in order of their bins."""
    values = values.double().nan_to_num()
    low, high = values.min(), values.max()
    width = (high - low) / count
    bin_of = torch.where(width > 0, (values - low) / width, 0).long().clamp_(0, count - 1)
    size = torch.zeros(count, dtype=torch.int64, device=values.device).index_add(0, bin_of, torch.ones_like(bin_of))
    return size, bin_of.argsort(stable=True)
