"""AdaFace: Kim et al. 2022 (2204.00964)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from nearfar.nn.arguments import non_negative, within
from nearfar_margin.angles import angle
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.running import renew

__all__ = ["AdaFace"]

#: The authors' bounds of a length, and what their code keeps an angle from 0 and π.
SHORTEST, LONGEST, EDGE = 0.001, 100.0, 0.001


@dataclass(frozen=True, slots=True)
class Graded(Rows):
    """With the quality of each sample, ẑ in −1 … 1, (n,)."""

    quality: Tensor


class AdaFace(MarginSoftmax):
    r"""A margin by the quality of the image, which the length of the embedding stands for.

    .. math::

        L_i = -\log \frac{e^{s \psi(\theta_{i y_i})}}
                         {e^{s \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s \cos\theta_{ij}}},
        \qquad \psi(\theta) = \cos(\theta - m \hat z_i) - (m + m \hat z_i),
        \quad \hat z_i = \operatorname{clip}\left(h\,\frac{\|x_i\| - \mu}{\sigma}, -1, 1\right)

    with μ and σ running means of the mean and the standard deviation of the lengths. A long embedding (ẑ = 1) has an
    additive cosine margin that counts most where it is easy, a short one (ẑ = −1) ArcFace's; θ − mẑ is kept in
    0.001 … π − 0.001.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [radians and cosine, 0..pi] m; 0.4 as in the paper.
    h : float
        [0..inf] How strongly the quality counts; 0.333 as in the paper.
    scale : float
        (0..inf] What the logits are multiplied with, s; 64 as in the paper.
    momentum : float
        [0..1] Weight of a batch in μ and σ; 0.01 as in the authors' training script. Their class has 1.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. The value depends on the length of the embeddings, kept in 0.001 … 100; the gradient
    does not see it. μ and σ are the buffers ``mean`` and ``std``; they start at 20 and 100 as in the authors' code,
    are renewed in each call in training mode before they are used, but by no batch with a length that is not finite,
    and are unchanged in evaluation mode. A reference set is not taken; what a miner selects weighs the elements, and
    does not enter them.

    Raises
    ------
    ArgumentError
        The margin, h or the momentum is out of its range, or the scale is not positive.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Kim, Jain, Liu (2022). AdaFace: Quality Adaptive Margin for Face Recognition. arXiv:2204.00964.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.4,
        h: float = 0.333,
        scale: float = 64.0,
        momentum: float = 0.01,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self.margin = within("margin", margin, 0.0, math.pi)
        self.h = non_negative("h", h)
        self.momentum = within("momentum", momentum, 0.0, 1.0)
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("std", torch.tensor(100.0))

    def prepare(self, rows: Rows) -> Rows:
        norm = rows.norm.detach().clamp(SHORTEST, LONGEST)
        if self.training and len(norm):
            usable = rows.norm.detach().isfinite().all()
            renew(self.mean, norm.mean(), self.momentum, usable)
            if len(norm) > 1:  # of one there is no deviation
                renew(self.std, norm.std(), self.momentum, usable)
        quality = (self.h * (norm - self.mean) / (self.std + EDGE)).clamp(-1, 1)
        return Graded(rows.t, rows.norm, rows.labels, quality=quality)

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        assert isinstance(rows, Graded)
        theta = (angle(t) - self.margin * rows.quality).clamp(EDGE, math.pi - EDGE)
        return theta.cos() - self.margin * (1 + rows.quality)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margin={self.margin}, h={self.h}, momentum={self.momentum}"
