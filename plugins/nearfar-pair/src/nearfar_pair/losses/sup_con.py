"""Supervised contrastive loss.

Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan (2020): Supervised Contrastive Learning.
arXiv:2004.11362.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar.nn.terms import Terms
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.graded import graded_costs
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.shares import log_shares
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped

__all__ = ["SupCon"]


class SupCon(SlopedLoss):
    r"""Cross-entropy of each anchor's positives among all others of the batch.

    .. math::
        L_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(s_{ip} / \tau)}{\sum_{a \in A(i)} \exp(s_{ia} / \tau)}

    P(i) holds the positives of anchor i, A(i) its positives and negatives: all but itself. The sum over the
    positives stands outside the logarithm, the paper's :math:`L_{out}`.

    Parameters
    ----------
    temperature : float
        (units of the similarity, 0..inf] τ; 0.1 as in the paper.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        By default the mean over the anchors that have a positive.

    Raises
    ------
    ArgumentError
        The temperature is not a finite number above 0.

    Notes
    -----
    Terms are ``element``, one for each anchor with at least one positive; the others are left out. With a
    reference set P and A are taken from it. Pairs from a miner restrict both: P(i) is the positives selected
    for i, A(i) these and the negatives selected for i, each once however often it was selected.

    Where labels grade how relevant a reference is, ψ from 0 to 1, the positives are averaged with weights
    :math:`\psi_{ip} / \sum_q \psi_{iq}` in place of :math:`1 / |P(i)|`: soft targets, the y-aware loss of Dufumier et
    al. (2021), arXiv:2106.08808, but for the constant that it divides its sum by.

    Deviations: the paper's reference code multiplies the loss with temperature / base temperature, which is 1
    in its experiments and left out here. pytorch-metric-learning averages over the anchors whose loss is
    above zero, and gives 0 for a batch of one class.

    References
    ----------
    Khosla et al. (2020), arXiv:2004.11362, equation 2.
    """

    graded = True

    def __init__(
        self, temperature: float = 0.1, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.temperature = positive("temperature", temperature)

    def default_distance(self) -> Distance:
        return Cosine()

    def terms(self, batch: Batch) -> Terms | Mapping[str, Terms]:
        return graded_costs(batch, self.distance, self._graded) if batch.is_graded else super().terms(batch)

    @property
    def loop(self) -> RowLoop:
        return soft_loop(Rule.MEAN_SHARE, -1 / self.temperature, -1 / self.temperature)

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        found, back = log_shares(rows, -1 / self.temperature)
        positives = rows.valid.to(found.dtype)
        weights = positives / positives.sum(1, keepdim=True).clamp_min_(1)
        costs = torch.linalg.vecdot(found, weights).neg()
        return Sloped((costs,), (lambda: rows.num_positives > 0,), lambda by: back(weights * -by))

    def _graded(self, rows: Rows, grades: Tensor) -> tuple[Tensor, Tensor]:
        total = grades.sum(1, keepdim=True)
        # Each share before the sum: grades may be as small as a float can be.
        shares = grades / torch.where(total > 0, total, 1)
        found, _ = log_shares(rows, -1 / self.temperature)
        return -torch.linalg.vecdot(found, rows.only_positives(shares)), rows.num_positives > 0

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
