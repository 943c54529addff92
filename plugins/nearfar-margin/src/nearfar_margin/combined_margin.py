"""The combined margin of ArcFace: Deng et al. 2019 (1801.07698), equation 4."""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from torch import Tensor

from nearfar.nn.arguments import check_choice, within
from nearfar_margin.angles import angle
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.scales import scale_of

__all__ = ["CombinedMargin"]


class CombinedMargin(MarginSoftmax):
    r"""Multiplicative, additive angular and additive cosine margin in one.

    .. math::

        L_i = -\log \frac{e^{s \psi(\theta_{i y_i})}}
                         {e^{s \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s \cos\theta_{ij}}},
        \qquad \psi(\theta) = \cos(m_1 \theta + m_2) - m_3

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    m1 : float
        [0..8] What the angle is multiplied with; 1 as in the paper's CM1.
    m2 : float
        [radians, 0..pi] What is added to the angle; 0.3 as in CM1.
    m3 : float
        [cosine, 0..2] What is taken from the cosine; 0.2 as in CM1.
    scale : float or "auto"
        (0..inf] What the logits are multiplied with, s; 64 as in the paper. "auto": the least with which a probability
        of 0.99 can be reached in spite of the margins, :func:`~nearfar_margin.scales.least_scale`.
    gradient : {"exact", "detached"}
        ``exact``: the gradient of the formula. ``detached``: ψ changes the value only and passes the gradient as if
        it were cos θ.
    beyond_pi : {"raw", "flat"}
        The target beyond m₁θ + m₂ = π, where the cosine rises again: ``raw``, as in the paper; ``flat``, −1 − m₃.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        ``gradient`` or ``beyond_pi`` is none of its choices, a margin is out of its range, or all are so large that no
        scale is enough, or the scale is neither a number above 0 nor "auto".
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Deng, Guo, Yang, Xue, Kotsia, Zafeiriou (2019). ArcFace: Additive Angular Margin Loss for Deep Face
    Recognition. arXiv:1801.07698, equation 4.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        m1: float = 1.0,
        m2: float = 0.3,
        m3: float = 0.2,
        scale: float | Literal["auto"] = 64.0,
        gradient: Literal["exact", "detached"] = "exact",
        beyond_pi: Literal["raw", "flat"] = "raw",
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        own = math.cos(within("m2", m2, 0.0, math.pi, "radians")) - within("m3", m3, 0.0, 2.0)
        number = scale_of("CombinedMargin", scale, num_classes, own=own)
        super().__init__(num_classes, embedding_size, scale=number, **kwargs)
        self.m1, self.m2, self.m3 = within("m1", m1, 0.0, 8.0), m2, m3
        self.gradient = check_choice(self, "gradient", gradient, ("exact", "detached"))
        self.beyond_pi = check_choice(self, "beyond_pi", beyond_pi, ("raw", "flat"))
        self.detached = gradient == "detached"

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        wide = self.m1 * angle(t) + self.m2
        if self.beyond_pi == "flat":
            wide = wide.clamp_max(math.pi)
        return torch.cos(wide) - self.m3

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, m1={self.m1}, m2={self.m2}, m3={self.m3}, gradient={self.gradient!r}, "
            f"beyond_pi={self.beyond_pi!r}"
        )
