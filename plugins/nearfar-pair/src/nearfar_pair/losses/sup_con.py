"""Supervised contrastive loss.

Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan (2020): Supervised Contrastive Learning.
arXiv:2004.11362.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.selection import distance_matrix
from nearfar_pair.masked_terms import MaskedTerms

__all__ = ["SupCon"]


class SupCon(EmbeddingLoss):
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

    Deviations: the paper's reference code multiplies the loss with temperature / base temperature, which is 1
    in its experiments and left out here. pytorch-metric-learning averages over the anchors whose loss is
    above zero, and gives 0 for a batch of one class.

    References
    ----------
    Khosla et al. (2020), arXiv:2004.11362, equation 2.
    """

    def __init__(
        self, temperature: float = 0.1, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.temperature = positive("temperature", temperature)

    def default_distance(self) -> Distance:
        return Cosine()

    def terms(self, batch: Batch) -> MaskedTerms:
        logits = distance_matrix(self.distance, batch) / -self.temperature
        P, A = _masks(batch)
        size = P.sum(1)
        has_positive = size > 0
        # −inf would do for exp, but not for the gradient of a row in which nothing is left.
        masked = logits.masked_fill(~A, torch.finfo(logits.dtype).min / 2)
        log_total = masked.logsumexp(1) if masked.shape[1] else masked.sum(1)
        # Each log-ratio is formed before the sum, so that large logits cancel rather than their sums.
        log_ratio = ((logits - log_total[:, None]) * P).sum(1) / size.clamp_min(1)
        return MaskedTerms("element", -log_ratio * has_positive, has_positive, labels=batch.labels)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


def _masks(batch: Batch) -> tuple[Tensor, Tensor]:
    """(n, m) boolean: the positives P(i) of each anchor i, and the set A(i) it is compared with."""
    if batch.selection is None:
        P = batch.positive_mask()
        return P, P | batch.negative_mask()
    a1, p, a2, n = batch.selection.pairs()
    P = torch.zeros(len(batch.embeddings), len(batch.reference), dtype=torch.bool, device=batch.embeddings.device)
    P[a1, p] = True
    A = P.clone()
    A[a2, n] = True
    return P, A
