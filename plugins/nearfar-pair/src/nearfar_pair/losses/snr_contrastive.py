"""Signal-to-noise contrastive loss.

Yuan, Deng, Tang, Tang, Chen (2019): Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning.
arXiv:1904.02616.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance, SquaredEuclidean
from nearfar.nn.reducers import AvgNonZero
from nearfar.nn.terms import Terms
from nearfar.nn.vectors import unit
from nearfar_pair.excess_losses import ExcessLoss, Line

__all__ = ["SNRContrastive"]


class SNRContrastive(ExcessLoss):
    r"""Positive pairs of little noise for the anchor's signal, negative pairs of much.

    .. math::
        L_+(a, p) = [d(a, p) - m_+]_+, \quad L_-(a, n) = [m_- - d(a, n)]_+, \qquad
        d(a, x) = \frac{\operatorname{var}(x - a)}{\operatorname{var}(a)}

    with variances over the coordinates of an embedding: the inverse of the ratio of the anchor as a signal to what
    must be added to it, the noise.

    Parameters
    ----------
    pos_margin : float
        [0..inf] m₊; 0 as in the paper, which has none.
    neg_margin : float
        [0..inf] m₋, the paper's α; 1, pytorch-metric-learning's. (Two unrelated embeddings have a distance of 2.)
    reducer : nn.Module, optional
        Reduces the sub-losses ``positive`` and ``negative`` apart, and their values are added; by default each is
        averaged over the pairs that cost something.

    Raises
    ------
    ArgumentError
        A margin is negative or not finite.

    Notes
    -----
    Terms are ``pos_pair`` and ``neg_pair``, one for each ordered pair; the distance of a to x is not that of x to a. An
    anchor whose coordinates are all alike has no signal, and is taken for one with a very large one. A pair that was
    selected twice counts twice.

    Deviations: embeddings are normalised, and the paper's penalty on their means is left out.

    References
    ----------
    Yuan et al. (2019), arXiv:1904.02616, equations 8 to 11.
    """

    def __init__(self, pos_margin: float = 0.0, neg_margin: float = 1.0, *, reducer: nn.Module | None = None) -> None:
        super().__init__(reducer=reducer)
        self.pos_margin = non_negative("pos_margin", pos_margin)
        self.neg_margin = non_negative("neg_margin", neg_margin)

    def default_distance(self) -> Distance:
        return SquaredEuclidean(normalize=False)

    def default_reducer(self) -> nn.Module:
        return AvgNonZero()

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        # The variance of a difference is the squared distance of what is left without the means, over the dimension.
        embeddings = _without_mean(batch.embeddings)
        reference = embeddings if batch.is_self else _without_mean(batch.reference)
        # A rule that chooses by distances of the embeddings as they were given does not mean these.
        given = (embeddings, reference)
        return super().terms(dataclasses.replace(batch, embeddings=embeddings, reference=reference, given=given))

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        signal = batch.embeddings.square().sum(1)
        none = signal <= torch.finfo(signal.dtype).eps ** 2
        return (torch.where(none, 1e-6, signal.masked_fill(none, 1).reciprocal()),)

    def lines(self, *of_anchor: Tensor) -> tuple[Line, Line]:
        (noise,) = of_anchor
        return Line(noise, -self.pos_margin), Line(-noise, self.neg_margin)

    def by_learned(self, positive: tuple[Any, Any], negative: tuple[Any, Any]) -> tuple[Any]:
        return (positive[0] - negative[0],)

    def extra_repr(self) -> str:
        return f"pos_margin={self.pos_margin}, neg_margin={self.neg_margin}"


def _without_mean(embeddings: Tensor) -> Tensor:
    units = unit(embeddings)[0]
    return units - units.mean(1, keepdim=True)
