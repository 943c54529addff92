"""Ranked list loss.

Wang, Hua, Kodirov, Hu, Garnier, Robertson (2019): Ranked List Loss for Deep Metric Learning. arXiv:1903.03238.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import finite, non_negative, within
from nearfar_pair.arithmetic import exponential_
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.row_losses import SlopedLoss, threshold
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped

__all__ = ["RankedList"]


class RankedList(SlopedLoss):
    r"""Positives within one distance, negatives beyond another, the worst of each anchor's list weighing most.

    .. math::
        L_i = (1 - \lambda) \sum_{p \in P_i} \frac{w_{ip}}{\sum_p w_{ip}} [d_{ip} - (\alpha - m)]_+
            + \lambda \sum_{n \in N_i} \frac{w_{in}}{\sum_n w_{in}} [\alpha - d_{in}]_+

    with :math:`w_{ip} = e^{T_p (d_{ip} - (\alpha - m))}` and :math:`w_{in} = e^{T_n (\alpha - d_{in})}` over the
    positives and negatives that cost something. The weights are constants to the gradient: by them alone it depends on
    how far a sample is from where it should be, as the paper argues.

    Parameters
    ----------
    margin : float
        [units of the distance, 0..inf] m, between where positives end and negatives begin; 0.4 as in the paper.
    alpha : float
        [units of the distance, -inf..inf] α, where negatives begin; 1.2 as in the paper.
    negative_temperature : float
        [0..inf] Tₙ; 10 as in the paper.
    positive_temperature : float
        [0..inf] Tₚ; 0 as in the paper, which weighs all positives alike.
    balance : float
        [0..1] λ, the share of the negatives; 0.5 as in the paper.
    distance : nn.Module, optional
        What d is, a similarity being negated with its thresholds; Euclidean distance of normalised embeddings by
        default.
    reducer : nn.Module, optional
        By default the mean over all anchors.

    Raises
    ------
    ArgumentError
        An argument is not a finite number in its range.

    Notes
    -----
    Terms are ``element``, one for each anchor; one without any pair costs 0. A negative at distance 0 costs the most of
    all; it passes no gradient itself, as no direction leads away from it, the subgradient of smallest norm. Pairs from
    a miner count once each, however often they were selected.

    References
    ----------
    Wang et al. (2019), arXiv:1903.03238, equations 4 to 9; constants in section 4.
    """

    is_full = True

    def __init__(
        self,
        margin: float = 0.4,
        alpha: float = 1.2,
        negative_temperature: float = 10.0,
        positive_temperature: float = 0.0,
        balance: float = 0.5,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = non_negative("margin", margin)
        self.alpha = finite("alpha", alpha)
        self.negative_temperature = non_negative("negative_temperature", negative_temperature)
        self.positive_temperature = non_negative("positive_temperature", positive_temperature)
        self.balance = within("balance", balance, 0, 1)

    @property
    def loop(self) -> RowLoop:
        boundary = threshold(self.distance, self.alpha), self.margin
        return RowLoop(
            "ranked", (*boundary, self.negative_temperature, self.positive_temperature, self.balance), _found
        )

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        alpha = threshold(self.distance, self.alpha)
        positive, by_ap = _weighed(rows.d_ap - (alpha - self.margin), self.positive_temperature)
        negative, by_an = _weighed(alpha - rows.d_an, self.negative_temperature, rows.scratch)
        costs = (1 - self.balance) * positive + self.balance * negative

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            return by_ap((1 - self.balance) * by), by_an(-self.balance * by)

        return Sloped((costs,), (lambda: torch.ones_like(costs, dtype=torch.bool),), pull)

    def extra_repr(self) -> str:
        return (
            f"margin={self.margin}, alpha={self.alpha}, negative_temperature={self.negative_temperature}, "
            f"positive_temperature={self.positive_temperature}, balance={self.balance}"
        )


def _found(costs: Tensor, counts: Tensor, work: object) -> tuple[Tensor, Tensor]:
    return costs, counts > 0


def _weighed(
    excess: Tensor, temperature: float, scratch: Tensor | None = None
) -> tuple[Tensor, Callable[[Any], Tensor]]:
    """The mean of what is above zero of each row of ``excess``, weighed by its exponential: (r,), and its slope.

    The weights are constants to the gradient, and the excess is written to where nothing is recorded.
    """
    costs = torch.relu(excess) if torch.is_grad_enabled() else excess.clamp_min_(0)
    given = costs.detach()
    # Of the largest first, so that no exponential overflows; what does not cost has no weight.
    weights = exponential_(torch.sub(given, given.amax(1, keepdim=True), out=scratch), temperature)
    weights.mul_(given.sign())
    total = torch.linalg.vecdot(weights, costs)
    sums = weights.sum(1).clamp_min_(torch.finfo(weights.dtype).tiny)
    return total / sums, lambda by: torch.mul(weights, (by / sums)[:, None], out=scratch)
