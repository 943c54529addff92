"""Recall@k surrogate loss.

Patel, Tolias, Matas (2022): Recall@k Surrogate Loss with Large Batches and Similarity Mixup. arXiv:2108.11179.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped
from nearfar_pair.soft_ranks import soft_among, soft_before

__all__ = ["RecallAtK"]


class RecallAtK(SlopedLoss):
    r"""One minus the share of an anchor's positives among its k nearest, both counted by sigmoids, for several k.

    .. math::
        L_i = 1 - \frac{1}{|K|} \sum_{k \in K} \frac{\sum_{p \in P_i} \sigma_{\tau_1}(k - r_{ip})}{\min(k, |P_i|)},
        \qquad r_{ip} = 1 + \sum_{z \in P_i \cup N_i \setminus p} \sigma_{\tau_2}(s_{iz} - s_{ip})

    with :math:`\sigma_\tau(x) = 1 / (1 + e^{-x / \tau})`.

    Parameters
    ----------
    ks : sequence of int
        The numbers k; 1, 2, 4, 8, 16 as in the paper.
    rank_temperature : float or sequence of float
        (0..inf] τ₁, on ranks, one for all k or one for each; 1 by default. The authors' code has τ₁ = k, the preset
        ``official_code``.
    temperature : float
        (units of the similarity, 0..inf] τ₂, on similarities; 0.01 as in the paper.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        By default the mean over the anchors with a positive.

    Raises
    ------
    ArgumentError
        There is no k, one is below 1, a temperature is not above 0, or there are not as many as k.

    Notes
    -----
    Terms are ``element``, one for each anchor with a positive. Of a perfect list the first k ranks lie on the slope of
    σ, so the least value is above 0. Pairs from a miner count once each, however often they were selected.

    Deviations: the paper divides by the number of positives; where that is above k, recall at k could not reach 1, and
    the authors' code divides by min(k, positives) too. There the count of positives is also cut off at k, where its
    gradient ends.

    References
    ----------
    Patel et al. (2022), arXiv:2108.11179, equations 5 to 7.
    """

    def __init__(
        self,
        ks: Sequence[int] = (1, 2, 4, 8, 16),
        rank_temperature: float | Sequence[float] = 1.0,
        temperature: float = 0.01,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.ks = tuple(ks)
        if not self.ks or not all(isinstance(k, int) and k >= 1 for k in self.ks):
            raise ArgumentError(f"RecallAtK: ks must be whole numbers of at least 1; got {ks!r}")
        each = (rank_temperature,) * len(self.ks) if isinstance(rank_temperature, int | float) else rank_temperature
        self.rank_temperature = tuple(positive("rank_temperature", value) for value in each)
        if len(self.rank_temperature) != len(self.ks):
            raise ArgumentError(
                f"RecallAtK: rank_temperature must be one number, or one for each of {len(self.ks)} ks; got "
                f"{rank_temperature!r}"
            )
        self.temperature = positive("temperature", temperature)

    def default_distance(self) -> Distance:
        return Cosine()

    def narrow(self, batch: Batch) -> bool:
        return True

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        among, by_ap = soft_among(rows, self.temperature)
        before, back = soft_before(rows, self.temperature)
        ahead = among + before
        k, temperature = _for_each(self.ks, ahead), _for_each(self.rank_temperature, ahead)
        share = torch.sigmoid((k - 1 - ahead) / temperature)
        most = torch.minimum(rows.num_positives.clamp_min(1).to(ahead.dtype).unsqueeze(1), k) * len(self.ks)
        weight = rows.valid.to(ahead.dtype) / most

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_ahead = (share * (1 - share) * weight / temperature).sum(0) * by
            near, far = back(by_ahead)
            return near + by_ap(by_ahead), far

        has_positive = rows.num_positives > 0
        costs = has_positive.to(ahead.dtype) - (share * weight).sum((0, 2))
        return Sloped((costs,), (lambda: has_positive,), pull)

    def extra_repr(self) -> str:
        return f"ks={self.ks}, rank_temperature={self.rank_temperature}, temperature={self.temperature}"


def _for_each(values: Sequence[float], like: Tensor) -> Tensor:
    """(K, 1, 1), for a matrix each; filled, as a GPU would be waited for where numbers are carried over."""
    return torch.stack([like.new_full((1, 1), value) for value in values])
