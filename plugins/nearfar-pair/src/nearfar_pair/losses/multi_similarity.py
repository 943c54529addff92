"""Multi-similarity loss.

Wang, Han, Huang, Dong, Scott (2019): Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.
arXiv:1904.06627.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import finite, positive
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.arithmetic import softplus
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.row_losses import SlopedLoss, threshold
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped, soft_extreme

__all__ = ["MultiSimilarity"]


class MultiSimilarity(SlopedLoss):
    r"""Pairs weighed by how similar they are, and how much more so than the other pairs of their anchor.

    .. math::
        L_i = \frac{1}{\alpha} \log \left(1 + \sum_{p \in P_i} e^{-\alpha (s_{ip} - \lambda)}\right)
            + \frac{1}{\beta} \log \left(1 + \sum_{n \in N_i} e^{\beta (s_{in} - \lambda)}\right)

    Parameters
    ----------
    alpha : float
        (0..inf] α, how sharply positives are weighed; 2 as in the paper.
    beta : float
        (0..inf] β, how sharply negatives are weighed; 50 as in the paper.
    base : float
        [units of the similarity, -inf..inf] λ, where weights begin; 1 as in the paper. On a distance d it is one, and
        λ − d takes the place of s − λ.
    distance : nn.Module, optional
        What s is; cosine similarity by default.
    reducer : nn.Module, optional
        By default the mean over all anchors.

    Raises
    ------
    ArgumentError
        α or β is not above 0, or λ not finite.

    Notes
    -----
    Terms are ``element``, one for each anchor; one without any pair costs 0. The paper's mining step is the
    miner ``multi_similarity``; with it, on the same distance, pairs are chosen while they are summed. Pairs from
    another miner count once each, however often they were selected.

    Deviation: none from the formula. The authors' code has λ = 0.5 and β = 40, and leaves out an anchor whose mined
    positives or negatives are none, which here still costs by the others.

    References
    ----------
    Wang et al. (2019), arXiv:1904.06627, equation 15; constants in section 4.1.
    """

    is_full = True

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 1.0,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.alpha = positive("alpha", alpha)
        self.beta = positive("beta", beta)
        self.base = finite("base", base)

    def default_distance(self) -> Distance:
        return Cosine()

    @property
    def loop(self) -> RowLoop:
        return soft_loop(Rule.EACH_SIDE, self.alpha, -self.beta, threshold(self.distance, self.base))

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        base = threshold(self.distance, self.base)
        p, by_ap = soft_extreme(rows.d_ap, self.alpha)
        n, by_an = soft_extreme(rows.d_an, -self.beta, rows.scratch)
        p, n = p - self.alpha * base, n + self.beta * base

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            return by_ap(torch.sigmoid(p) * (by / self.alpha)), by_an(torch.sigmoid(n) * (by / self.beta))

        costs = softplus(p) / self.alpha + softplus(n) / self.beta
        return Sloped((costs,), (lambda: torch.ones_like(costs, dtype=torch.bool),), pull)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, base={self.base}"
