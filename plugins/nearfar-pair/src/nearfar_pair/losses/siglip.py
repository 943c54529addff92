"""Sigmoid loss.

Zhai, Mustafa, Kolesnikov, Beyer (2023): Sigmoid Loss for Language Image Pre-Training. arXiv:2303.15343.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import finite, positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.excess_losses import ExcessLoss, Line
from nearfar_pair.links import LOGISTIC

__all__ = ["SigLIP"]


class SigLIP(ExcessLoss):
    r"""Each pair on its own decided by a logistic regression: positive or negative.

    .. math::
        L_+(a, p) = \log(1 + e^{-(t s_{ap} + b)}), \qquad L_-(a, n) = \log(1 + e^{t s_{an} + b})

    summed over all pairs and divided by the number of anchors.

    Parameters
    ----------
    scale : float
        (0..inf] Where t begins; 10 as in the paper. Its logarithm is a parameter.
    bias : float
        [-inf..inf] Where b, a parameter, begins; −10 as in the paper, as most pairs are negative.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        Reduces the sub-losses ``positive`` and ``negative`` apart, and their values are added; by default each sum is
        divided by the number of anchors.

    Raises
    ------
    ArgumentError
        The scale is not above 0, or the bias is not finite.

    Notes
    -----
    Terms are ``pos_pair`` and ``neg_pair``. The paper has two towers: images as ``embeddings``, texts as
    ``ref_emb``, and labels that pair each image with its text. As each pair is decided alone the loss is the same both
    ways. A pair that was selected twice counts twice.

    References
    ----------
    Zhai et al. (2023), arXiv:2303.15343, equation 1 and algorithm 1.
    """

    link = LOGISTIC

    def __init__(
        self,
        scale: float = 10.0,
        bias: float = -10.0,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.log_scale = nn.Parameter(torch.tensor(math.log(positive("scale", scale))))
        self.bias = nn.Parameter(torch.tensor(finite("bias", bias)))
        self._start = float(scale), float(bias)

    def default_distance(self) -> Distance:
        return Cosine()

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        dtype = batch.embeddings.dtype
        return self.log_scale.to(dtype).exp(), self.bias.to(dtype)

    def lines(self, *of_anchor: Tensor) -> tuple[Line, Line]:
        t, b = of_anchor
        return Line(t, -b), Line(-t, b)

    def by_learned(self, positive: tuple[Any, Any], negative: tuple[Any, Any]) -> tuple[Any, Any]:
        return positive[0] - negative[0], negative[1] - positive[1]

    def normalizer(self, batch: Batch, active: Callable[[], Tensor]) -> float:
        return float(len(batch.embeddings))

    def extra_repr(self) -> str:
        scale, bias = self._start
        return f"scale={scale}, bias={bias}"
