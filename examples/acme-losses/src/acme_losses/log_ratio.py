"""The loss ``log_ratio``."""

from __future__ import annotations

from nearfar.nn import Batch, EmbeddingLoss, MaterialTerms, Terms
from nearfar.nn.arguments import non_negative
from torch import nn

__all__ = ["LogRatio"]

#: What a shorter distance counts as, for the logarithm of 0 has no end.
SHORTEST = 1e-6


class LogRatio(EmbeddingLoss):
    r"""A positive nearer than a negative by a factor.

    .. math:: L(a, p, n) = [\log d_{ap} - \log d_{an} + m]_+

    Parameters
    ----------
    margin : float
        [0..inf] m, the logarithm of the factor.
    distance : nn.Module, optional
        What d is; Euclidean distance of normalised embeddings by default.
    reducer : nn.Module, optional
        Reduction of the triplets' losses; the mean by default.

    Raises
    ------
    ArgumentError
        The margin is negative or not finite.
    """

    def __init__(
        self, margin: float = 0.5, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = non_negative("margin", margin)

    def terms(self, batch: Batch) -> Terms:
        a, p, n = batch.triplets()
        log = self.distance(batch.embeddings, batch.reference).clamp_min(SHORTEST).log()
        values = (log[a, p] - log[a, n] + self.margin).relu()
        return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings), labels=batch.labels)
