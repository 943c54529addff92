"""MV-Softmax: Wang et al. 2020 (1912.00833)."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice, finite, within
from nearfar_margin.angles import cos_plus, widened
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax

__all__ = ["MVSoftmax"]


class MVSoftmax(MarginSoftmax):
    r"""Classes that a sample is mistaken for count more: their logits are raised.

    .. math::

        L_i = -\log \frac{e^{s \psi(\theta_{i y_i})}}
                         {e^{s \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s N(\theta_{ij})}},
        \qquad
        N(\theta_{ij}) = \begin{cases} \cos\theta_{ij} & \cos\theta_{ij} \le \psi(\theta_{i y_i}) \\
            h \cos\theta_{ij} + h - 1 & \text{else, adaptive} \\
            \cos\theta_{ij} + h - 1 & \text{else, fixed} \end{cases}

    with ψ(θ) = cos θ − m (am) or ArcFace's cos(θ + m), cos θ − m sin m beyond θ + m = π (arc).

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    form : {"am", "arc"}
        Whose margin ψ has: MV-AM-Softmax or MV-Arc-Softmax.
    margin : float
        [cosine or radians, 0..2] Additive margin m; 0.35 as in the paper for ``am``, which has 0.5 for ``arc``.
    hardness : float
        [1..inf) h, the paper's t + 1; 1.2 as in the paper, 1 leaves all classes as they are.
    weighting : {"adaptive", "fixed"}
        Whether a mistaken class is raised the more the nearer it is, or all by the same.
    easy_margin : bool
        Whether ψ has the margin only where it leaves something: of cosines above m (am) or above 0 (arc), as in
        FaceX-Zoo, and is cos θ elsewhere. Which classes are mistaken for the own one is not changed by it.
    scale : float
        (0..inf] What the logits are multiplied with, s; 32 as in the paper.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        ``form`` or ``weighting`` is none of its choices, or a number is out of its range.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Wang, Zhang, Wang, Fu, Shi, Mei (2020). Mis-classified Vector Guided Softmax Loss for Face Recognition.
    arXiv:1912.00833.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        form: Literal["am", "arc"] = "am",
        margin: float = 0.35,
        hardness: float = 1.2,
        weighting: Literal["adaptive", "fixed"] = "adaptive",
        scale: float = 32.0,
        easy_margin: bool = False,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self.form = check_choice(self, "form", form, ("am", "arc"))
        self.margin = within("margin", margin, 0.0, 2.0)
        if finite("hardness", hardness) < 1:
            raise ArgumentError(f"MVSoftmax: hardness must be at least 1; got {hardness!r}")
        self.hardness = hardness
        self.weighting = check_choice(self, "weighting", weighting, ("adaptive", "fixed"))
        self.easy_margin = easy_margin

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        if self.form == "arc":
            return widened(t, self.margin, easy=self.easy_margin)
        return torch.where(t > self.margin, t - self.margin, t) if self.easy_margin else t - self.margin

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        hard = c > self._limit(rows.t.detach())[:, None]
        slope = self.hardness if self.weighting == "adaptive" else 1.0
        return torch.where(hard, slope * c + self.hardness - 1, c)

    def _limit(self, t: Tensor) -> Tensor:
        """Above which cosine another class is mistaken for the own one."""
        if self.form == "am":
            return t - self.margin
        return cos_plus(t, self.margin) if self.easy_margin else widened(t, self.margin)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, form={self.form!r}, margin={self.margin}, hardness={self.hardness}, "
            f"weighting={self.weighting!r}, easy_margin={self.easy_margin}"
        )
