"""Decoupled contrastive loss.

Yeh, Hong, Hsu, Liu, Chen, LeCun (2021): Decoupled Contrastive Learning. arXiv:2110.06848.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.arithmetic import log_sum_exp
from nearfar_pair.row_losses import PositiveLoss
from nearfar_pair.sides import Rows

__all__ = ["DecoupledContrastive"]


class DecoupledContrastive(PositiveLoss):
    r"""The cross-entropy of a positive pair without the positive in its denominator.

    .. math::
        L_{ip} = -\frac{s_{ip}}{\tau} + \log \sum_{n \in N_i} e^{s_{in} / \tau}

    So the gradient of a positive does not fade as it becomes near, and small batches do as well as large ones.

    Parameters
    ----------
    temperature : float
        (units of the similarity, 0..inf] τ; 0.1 as in the paper.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        By default the mean over the positive pairs.

    Raises
    ------
    ArgumentError
        The temperature is not a finite number above 0.

    Notes ----- Terms are ``pos_pair``, one for each ordered positive pair with a negative to stand against; they may be
    below zero, and ``avg_non_zero`` takes those for satisfied. Pairs from a miner count once each, however often they
    were selected.

    Deviation: the paper's second form, DCLW, weighs positive pairs by a von Mises-Fisher density; it is not here.

    References
    ----------
    Yeh et al. (2021), arXiv:2110.06848, equation 6.
    """

    signed = True

    def __init__(
        self, temperature: float = 0.1, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.temperature = positive("temperature", temperature)

    def default_distance(self) -> Distance:
        return Cosine()

    def costs(self, rows: Rows, *learned: Tensor) -> tuple[Tensor, Tensor]:
        has_cost = rows.valid & (rows.num_negatives > 0)[:, None]
        costs = log_sum_exp(rows.d_an, -1 / self.temperature, rows.scratch)[:, None] + rows.d_ap / self.temperature
        return torch.where(has_cost, costs, 0), has_cost

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
