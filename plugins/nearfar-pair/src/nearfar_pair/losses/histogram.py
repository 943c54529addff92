"""Histogram loss.

Ustinova, Lempitsky (2016): Learning Deep Embeddings with Histogram Loss. arXiv:1611.00822.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar.nn.precision import in_full_precision
from nearfar.nn.terms import Terms
from nearfar_pair.chosen import rule_of
from nearfar_pair.pair_distances import pair_distances
from nearfar_pair.row_losses import PairLoss
from nearfar_pair.row_pass import RowPass
from nearfar_pair.sides import Rows

__all__ = ["Histogram"]


class Histogram(PairLoss):
    r"""The chance that a negative pair is more similar than a positive one, from their histograms.

    .. math::
        L = \sum_{r=1}^{R} h^-_r \sum_{q=1}^{r} h^+_q = \frac{1}{|S^-|} \sum_{n \in S^-} \Phi^+(s_n)

    where :math:`h_r` is the share of pairs in bin r of [−1, 1], each pair shared linearly between the two bins it lies
    between, and :math:`\Phi^+` the positive pairs' distribution, linear between the bins: the cost of each negative
    pair is the share of positive pairs that are less similar.

    Parameters
    ----------
    num_bins : int
        [1..inf] R − 1, how many steps [−1, 1] is divided into; 100, pytorch-metric-learning's, steps of 0.02.
    distance : nn.Module, optional
        Cosine similarity, by default and on purpose: it lies in [−1, 1].
    reducer : nn.Module, optional
        By default the mean over the negative pairs.

    Raises
    ------
    ArgumentError
        The number of bins is no whole number of at least 1.

    Notes
    -----
    Terms are ``neg_pair``, one for each ordered negative pair of a batch that has a positive one. A pair
    that was selected twice counts twice. There are no parameters but the number of bins, and small batches have rough
    histograms: the paper's are of 256.

    References
    ----------
    Ustinova, Lempitsky (2016), arXiv:1611.00822, equations 2 to 5.
    """

    def __init__(
        self, num_bins: int = 100, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        if isinstance(num_bins, bool) or not isinstance(num_bins, int) or num_bins < 1:
            raise ArgumentError(f"Histogram: num_bins must be a whole number of at least 1; got {num_bins!r}")
        self.num_bins = num_bins

    def default_distance(self) -> Distance:
        return Cosine()

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        """(1, R + 2) the share of positive pairs up to each bin, 0 before the first and the last repeated."""
        if batch.selection is not None and rule_of(batch) is None:
            a1, p, *_ = batch.selection.pairs()
            reference = None if batch.is_self else batch.reference
            d = pair_distances(self.distance, batch.embeddings, reference, a1, p)
            weight = torch.ones_like(d)
        else:
            d, weight = (x.flatten() for x in RowPass(batch, self.distance, _positives).outputs)
        place = self._place(d)
        before = place.detach().floor()
        share, index = (place - before) * weight, _entries(before)
        counts = place.new_zeros(self.num_bins + 3)
        counts = counts.index_add(0, index, weight - share).index_add(0, index + 1, share)
        return ((counts.cumsum(0) / weight.sum().clamp_min(1))[None],)

    def _place(self, d: Tensor) -> Tensor:
        """Among the bins, the first of which is 1: below it lies what is no pair, and all that is below at 0."""
        return ((1 - d) * (self.num_bins / 2)).clamp(-1, self.num_bins) + 1

    def positive_cost(self, d: Tensor, *of_anchor: Tensor) -> Tensor:
        return torch.zeros_like(d)

    def negative_cost(self, d: Tensor, *of_anchor: Tensor) -> Tensor:
        found: Tensor = _Interpolated.apply(self._place(d), of_anchor[0][0])
        return found

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        return {"negative": super().terms(batch)["negative"]}

    def extra_repr(self) -> str:
        return f"num_bins={self.num_bins}"


def _positives(rows: Rows) -> tuple[Tensor, Tensor]:
    """Their distances, and how often each counts."""
    return rows.d_ap, rows.valid.to(rows.d_ap.dtype) if rows.times is None else rows.times[0]


def _entries(places: Tensor) -> Tensor:
    """Whole places as indices; what is no number has to lie somewhere, and shows in what is made of the place."""
    return places.long().clamp_min_(0)


class _Interpolated(torch.autograd.Function):
    """The values of a table (R,) at places between its entries, of any shape."""

    @staticmethod
    def forward(ctx: Any, place: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(place, table)
        steps = torch.cat([table.diff(), table.new_zeros(1)])
        before = place.floor()
        index = _entries(before)
        return torch.addcmul(table[index], place - before, steps[index])

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by_found: Tensor) -> tuple[Tensor | None, Tensor | None]:
        place, table = ctx.saved_tensors
        steps = torch.cat([table.diff(), table.new_zeros(1)])
        before = place.detach().floor()
        index = _entries(before)
        by_place = by_found * steps[index] if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return by_place, None
        after = (by_found * (place - before)).flatten()
        by_table = table.new_zeros(len(table) + 1).index_add(0, index.flatten(), by_found.flatten() - after)
        return by_place, by_table.index_add(0, index.flatten() + 1, after)[: len(table)]
