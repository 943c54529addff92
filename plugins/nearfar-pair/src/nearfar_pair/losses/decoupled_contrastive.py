"""Decoupled contrastive loss.

Yeh, Hong, Hsu, Liu, Chen, LeCun (2021): Decoupled Contrastive Learning. arXiv:2110.06848.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.arithmetic import log_sum_exp
from nearfar_pair.row_losses import PositiveLoss, SlopedLoss
from nearfar_pair.row_pass import RowPass
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
        """The log of the mean of exp(s/σ) over the positive pairs that have a cost."""
        if self.sigma is None:
            return ()
        log_sums, counts = RowPass(batch, self.distance, self._shares).outputs
        count = counts.sum()
        # In two steps, by rows and then of these: no row is so far from another that it would be lost.
        log_mean = (
            torch.logsumexp(torch.cat([log_sums, log_sums.new_full((1,), -FAR)]), 0)
            - count.clamp_min(1).to(log_sums).log()
        )
        return (log_mean,)

    def _shares(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """log Σ exp(s/σ) over each anchor's positives that have a cost, and how many these are."""
        assert self.sigma is not None
        has_cost = rows.valid & (rows.num_negatives > 0)[:, None]
        return log_sum_exp(torch.where(has_cost, rows.d_ap, FAR), -1 / self.sigma), has_cost.sum(1)

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        has_cost = rows.valid & (rows.num_negatives > 0)[:, None]
        s = torch.where(has_cost, -rows.d_ap, 0)
        n, by_an = soft_extreme(rows.d_an, -1 / self.temperature, rows.scratch)
        weighed = s
        if self.sigma is not None:
            share = torch.where(has_cost, s / self.sigma - learned[0], 0).exp()
            weighed = (2 - share) * s

        def pull(by: Any) -> tuple[Tensor, ...]:
            by_cost = has_cost.to(n.dtype) * by
            by_s, by_n = by_cost / -self.temperature, by_an(by_cost.sum(1))
            if self.sigma is None:
                return -by_s, by_n
            by_share = by_s * share * s
            return by_s * (share - 2) + by_share / self.sigma, by_n, by_share.sum()

        costs = n[:, None] - weighed / self.temperature
        return Sloped((torch.where(has_cost, costs, 0),), (lambda: has_cost,), pull)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, sigma={self.sigma}"
