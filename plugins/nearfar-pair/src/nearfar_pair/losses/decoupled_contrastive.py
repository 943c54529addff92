"""Decoupled contrastive loss.

Yeh, Hong, Hsu, Liu, Chen, LeCun (2021): Decoupled Contrastive Learning. arXiv:2110.06848.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.arithmetic import log_sum_exp
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.pair_distances import pair_distances
from nearfar_pair.row_losses import PositiveLoss, SlopedLoss
from nearfar_pair.row_pass import RowPass, is_at_once
from nearfar_pair.sides import FAR, Rows
from nearfar_pair.sloped import Sloped, soft_extreme

__all__ = ["DecoupledContrastive"]


class DecoupledContrastive(SlopedLoss, PositiveLoss):
    r"""The cross-entropy of a positive pair without the positive in its denominator.

    .. math::
        L_{ip} = -w_{ip} \frac{s_{ip}}{\tau} + \log \sum_{n \in N_i} e^{s_{in} / \tau}

    So the gradient of a positive does not fade as it becomes near, and small batches do as well as large ones. The
    weight w is 1; in the paper's second form, DCLW, far positives weigh more:

    .. math:: w_{ip} = 2 - \frac{e^{s_{ip} / \sigma}}{\mathrm{mean}_{jq}\, e^{s_{jq} / \sigma}}

    Parameters
    ----------
    temperature : float
        (units of the similarity, 0..inf] τ; 0.1 as in the paper.
    sigma : float, optional
        (units of the similarity, 0..inf] σ of the weights; the paper's DCLW has 0.5. Without it the weights are 1.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        By default the mean over the positive pairs.

    Raises
    ------
    ArgumentError
        The temperature or sigma is not a finite number above 0.

    Notes
    -----
    Terms are ``pos_pair``, one for each ordered positive pair with a negative to stand against; they may be below
    zero, and ``avg_non_zero`` takes those for satisfied. Pairs from a miner count once each, however often they were
    selected. The mean of the weights' denominator is over these pairs, and gradients go through it, as in the authors'
    code.

    References
    ----------
    Yeh et al. (2021), arXiv:2110.06848, equations 6 and 7.
    """

    signed = True

    def __init__(
        self,
        temperature: float = 0.1,
        sigma: float | None = None,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.temperature = positive("temperature", temperature)
        self.sigma = None if sigma is None else positive("sigma", sigma)

    def default_distance(self) -> Distance:
        return Cosine()

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        """The log of the mean of exp(s/σ) over the positive pairs that have a cost; nothing where rows have all."""
        if self.sigma is None or is_at_once(batch, self.distance):
            return ()
        rows = RowPass(batch, self.distance, self._shares)
        log_sums, count = self._of_pairs(batch, rows) if rows.sides.has_few_positives else self._of_rows(rows)
        # Of what may be nothing.
        log_sum = torch.logsumexp(torch.cat([log_sums, log_sums.new_full((1,), -FAR)]), 0)
        return (log_sum - count.clamp_min(1).to(log_sums).log(),)

    def _of_pairs(self, batch: Batch, rows: RowPass) -> tuple[Tensor, Tensor]:
        """s/σ of each positive pair that has a cost, and how many these are."""
        assert self.sigma is not None
        others, valid = rows.table
        a, place = torch.where(valid & (rows.sides.num_negatives > 0)[:, None])
        reference = None if batch.is_self else batch.reference
        d = pair_distances(self.distance, batch.embeddings, reference, a, others[a, place])
        return d / -self.sigma, torch.tensor(len(a))

    def _of_rows(self, rows: RowPass) -> tuple[Tensor, Tensor]:
        """log Σ exp(s/σ) of each row: in two steps none is so far from another that it would be lost."""
        log_sums, counts = rows.outputs
        return log_sums, counts.sum()

    def _shares(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """log Σ exp(s/σ) over each anchor's positives that have a cost, and how many these are."""
        assert self.sigma is not None
        has_cost = rows.valid & (rows.num_negatives > 0)[:, None]
        return log_sum_exp(torch.where(has_cost, rows.d_ap, FAR), -1 / self.sigma), has_cost.sum(1)

    @property
    def loop(self) -> RowLoop | None:
        scale = -1 / self.temperature
        return soft_loop(Rule.EACH_DIFFERENCE, scale, scale) if self.sigma is None else None

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        has_cost = rows.valid & (rows.num_negatives > 0).unsqueeze(1)
        costly = has_cost.to(rows.d_ap.dtype)
        n, by_an = soft_extreme(rows.d_an, -1 / self.temperature, rows.scratch)
        weighed, back = (rows.d_ap, _all) if self.sigma is None else _weighed(rows.d_ap, has_cost, self.sigma, *learned)

        def pull(by: Any) -> tuple[Tensor, ...]:
            by_cost = costly * by
            by_ap, *by_learned = back(by_cost / self.temperature)
            return by_ap, by_an(by_cost.sum(1)), *by_learned

        costs = torch.add(n.unsqueeze(1), weighed, alpha=1 / self.temperature)
        return Sloped((costs * costly,), (lambda: has_cost,), pull)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, sigma={self.sigma}"


def _all(by: Tensor) -> tuple[Tensor]:
    return (by,)


def _weighed(
    d_ap: Tensor, has_cost: Tensor, sigma: float, log_mean: Tensor | None = None
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """(r, k) distances by their weights w, and how a gradient by them goes back to the distances and to ``log_mean``.

    That is the logarithm of the denominator of w; None where it is the mean over these.
    """
    d = torch.where(has_cost, d_ap, FAR)
    count = has_cost.sum()
    if log_mean is None:
        share = torch.softmax((d / -sigma).flatten(), 0).view_as(d) * count
    else:
        share = (d / -sigma - log_mean).exp()
    weight = 2 - share

    def back(by: Tensor) -> tuple[Tensor, ...]:
        of_share = by * share * d
        by_d, by_mean = torch.addcmul(of_share / sigma, by, weight), of_share.sum()
        if log_mean is not None:
            return by_d, by_mean
        return (torch.addcmul(by_d, share, by_mean / count.clamp_min(1), value=-1 / sigma),)

    return weight * d, back
