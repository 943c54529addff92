"""SphereFace-R: Liu et al. 2022 (2109.05565)."""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from torch import Tensor

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice, finite
from nearfar_margin.angles import angle
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.scales import scale_of

__all__ = ["SphereFaceR"]


class SphereFaceR(MarginSoftmax):
    r"""Multiplicative angular margin, revived: on the target's angle (v1) or on the angles to all others (v2).

    .. math::

        L_i = -\log \frac{e^{s \psi(\theta_{i y_i})}}
                         {e^{s \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s N(\theta_{ij})}},
        \qquad
        \begin{aligned}
        \text{v1:}\; & \psi(\theta) = \cos(\min(m\theta, \pi)), & N(\theta) &= \cos\theta \\
        \text{v2:}\; & \psi(\theta) = \cos\theta, & N(\theta) &= \cos(\theta / m)
        \end{aligned}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [1..inf) What the target's angle is multiplied with, or the others' are divided by, m; 1.5 as in the authors'
        code.
    scale : float or "norm"
        (0..inf] What the logits are multiplied with, s; 30 as in the authors' code (hard feature normalisation).
        "norm": the length of each embedding takes its place (no feature normalisation).
    version : {"v1", "v2"}
        Which of the two, as the paper calls them.
    gradient : {"detached", "exact"}
        ``detached``: ψ and N change the values only and pass the gradient as if they were cos θ, the paper's
        characteristic gradient detachment. ``exact``: the gradient of the formula.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        ``version`` or ``gradient`` is none of its choices, the margin is below 1, or the scale is neither a number
        above 0 nor "norm".
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Liu, Wen, Raj, Singh, Weller (2022). SphereFace Revived: Unifying Hyperspherical Face Recognition.
    arXiv:2109.05565.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 1.5,
        scale: float | Literal["norm"] = 30.0,
        version: Literal["v1", "v2"] = "v1",
        gradient: Literal["detached", "exact"] = "detached",
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        number = scale_of("SphereFaceR", scale, num_classes, words=("norm",))
        super().__init__(num_classes, embedding_size, scale=number, **kwargs)
        self.times_norm = scale == "norm"
        if finite("margin", margin) < 1:
            raise ArgumentError(f"SphereFaceR: margin must be at least 1; got {margin!r}")
        self.margin = margin
        self.version = check_choice(self, "version", version, ("v1", "v2"))
        self.gradient = check_choice(self, "gradient", gradient, ("detached", "exact"))
        self.detached = gradient == "detached"

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        if self.version == "v2":
            return t
        return torch.cos((self.margin * angle(t)).clamp_max(math.pi))

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        return torch.cos(angle(c) / self.margin) if self.version == "v2" else c

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margin={self.margin}, version={self.version!r}, gradient={self.gradient!r}"
