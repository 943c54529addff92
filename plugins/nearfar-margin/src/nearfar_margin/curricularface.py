"""CurricularFace: Huang et al. 2020 (2004.00288)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from nearfar.nn.arguments import within
from nearfar_margin.angles import widened
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.running import renew

__all__ = ["CurricularFace"]


@dataclass(frozen=True, slots=True)
class _WithTau(Rows):
    """τ as it is in this call: the next one changes the buffer, maybe before this one's backward pass."""

    tau: Tensor


class CurricularFace(MarginSoftmax):
    r"""ArcFace whose hard negatives count little at first and more and more as the training goes on.

    .. math::

        L_i = -\log \frac{e^{s \psi(\theta_{i y_i})}}
                         {e^{s \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s N(\theta_{ij})}},
        \qquad
        N(\theta_{ij}) = \begin{cases} \cos\theta_{ij} & \cos\theta_{ij} \le \psi(\theta_{i y_i}) \\
                         \cos\theta_{ij} (\tau + \cos\theta_{ij}) & \text{else} \end{cases}

    with ArcFace's ψ(θ) = cos(θ + m), cos θ − m sin m beyond θ + m = π, and τ the running mean of the cosines to the
    own classes.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [radians, 0..pi] Additive angular margin m; 0.5 as in the paper.
    scale : float
        (0..inf] What the logits are multiplied with, s; 64 as in the paper.
    momentum : float
        [0..1] Weight of a batch in τ; 0.01 as in the authors' code, where τ keeps 0.99 of itself.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. τ is the buffer ``tau``; it starts at 0, is renewed in each call in training mode
    before it is used, but by no batch with a cosine that is not finite, and is unchanged in evaluation mode. A
    reference set is not taken; what a miner selects weighs the elements, and does not enter τ.

    Raises
    ------
    ArgumentError
        The margin or the momentum is out of its range, or the scale is not positive.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Huang, Wang, Tai, Liu, Shen, Li, Li, Huang (2020). CurricularFace: Adaptive Curriculum Learning Loss for Deep Face
    Recognition. arXiv:2004.00288.
    """

    tau: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.5,
        scale: float = 64.0,
        momentum: float = 0.01,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self.margin = within("margin", margin, 0.0, math.pi, "radians")
        self.momentum = within("momentum", momentum, 0.0, 1.0)
        self.register_buffer("tau", torch.zeros(()))

    def prepare(self, rows: Rows) -> Rows:
        if self.training and len(rows.t):
            mean = rows.t.detach().mean()
            renew(self.tau, mean, self.momentum, mean.isfinite())
        return _WithTau(rows.t, rows.norm, rows.labels, tau=self.tau.clone())

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return widened(t, self.margin)

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        assert isinstance(rows, _WithTau)
        hard = c > widened(rows.t.detach(), self.margin)[:, None]
        return torch.where(hard, c * (rows.tau + c), c)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margin={self.margin}, momentum={self.momentum}"
