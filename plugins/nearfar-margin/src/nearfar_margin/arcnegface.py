"""ArcNegFace: Liu et al. 2019 (1909.00632)."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from nearfar.nn.arguments import non_negative, positive, within
from nearfar_margin.angles import widened
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax

__all__ = ["ArcNegFace"]


class ArcNegFace(MarginSoftmax):
    r"""ArcFace whose negatives count the more the nearer their cosine is to the target's: hard, but not mislabelled.

    .. math::

        L_i = -\log \frac{e^{s \psi(\theta_{i y_i})}}
              {e^{s \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s (\tau_{ij} \cos\theta_{ij} + \tau_{ij} - 1)}},
        \qquad
        \tau_{ij} = \alpha\, e^{-(\cos\theta_{ij} - \psi(\theta_{i y_i}))^2 / \sigma}

    with ArcFace's ψ(θ) = cos(θ + m), cos θ − m sin m beyond θ + m = π. τ is held constant in the gradient.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [radians, 0..pi] Additive angular margin m; 0.5 as in the paper.
    alpha : float
        [0..inf] The greatest weight of a negative, α; 1.2 as in the paper.
    sigma : float
        (0..inf] Width of the bell, σ; 2 as in the paper.
    scale : float
        (0..inf] What the logits are multiplied with, s; 64 as in the paper.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        A number is out of its range.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Liu, Song, Wang, Zhang, Wang, Li, Ouyang (2019). Towards Flops-constrained Face Recognition. arXiv:1909.00632.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.5,
        alpha: float = 1.2,
        sigma: float = 2.0,
        scale: float = 64.0,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self.margin = within("margin", margin, 0.0, math.pi, "radians")
        self.alpha = non_negative("alpha", alpha)
        self.sigma = positive("sigma", sigma)

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return widened(t, self.margin)

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        psi = widened(rows.t.detach(), self.margin)[:, None]
        tau = self.alpha * torch.exp(-(c.detach() - psi).square() / self.sigma)
        return tau * c + tau - 1

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margin={self.margin}, alpha={self.alpha}, sigma={self.sigma}"
