"""NPCFace: Zeng et al. 2020 (2007.10172)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from nearfar.nn.arguments import non_negative, within
from nearfar_margin.angles import cos_plus
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax

__all__ = ["NPCFace"]


@dataclass(frozen=True, slots=True)
class Cooperating(Rows):
    """With the margin of each sample in radians, (n,)."""

    margin: Tensor


class NPCFace(MarginSoftmax):
    r"""Hard positives and hard negatives cooperate: the nearer a sample's hard negatives, the larger its margin.

    .. math::

        L_i = -\log \frac{e^{s \psi_i(\theta_{i y_i})}}
                         {e^{s \psi_i(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s N(\theta_{ij})}},
        \qquad
        N(\theta_{ij}) = \begin{cases} t \cos\theta_{ij} + a & j \in H_i \\ \cos\theta_{ij} & \text{else} \end{cases}

    .. math::

        \psi_i(\theta) = \begin{cases} \cos(\theta + m_i) & \theta < \pi / 2 \\ \cos\theta & \text{else} \end{cases},
        \quad
        m_i = m_0 + m_1 \frac{1}{|H_i|} \sum_{j \in H_i} \cos\theta_{ij},
        \quad
        H_i = \{j \ne y_i : \cos\theta_{ij} > \cos(\theta_{i y_i} + m)\}

    with mᵢ = m₀ where no class is hard. mᵢ is held constant in the gradient.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [radians, 0..pi] By how much a class may be farther than the own one and still be hard, m; 0.5 as in FaceX-Zoo,
        by one of the authors.
    least_margin : float
        [radians, 0..pi] m₀; 0.4 as in FaceX-Zoo.
    gain : float
        [radians, 0..pi] How much of the mean hard cosine is added to it, m₁; 0.2 as in FaceX-Zoo.
    slope : float
        [0..inf] What the cosine of a hard class is multiplied with, t; 1.1 as in FaceX-Zoo.
    offset : float
        [0..inf] What is added to it, a; 0.2 as in FaceX-Zoo.
    scale : float
        (0..inf] What the logits are multiplied with, s; 64 as in FaceX-Zoo.

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
    Zeng, Shi, Du, Wang, Lei, Mei (2020). NPCFace: Negative-Positive Collaborative Training for Large-scale Face
    Recognition. arXiv:2007.10172.
    """

    surveys = True

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.5,
        least_margin: float = 0.4,
        gain: float = 0.2,
        slope: float = 1.1,
        offset: float = 0.2,
        scale: float = 64.0,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self.margin = within("margin", margin, 0.0, math.pi, "radians")
        self.least_margin = within("least_margin", least_margin, 0.0, math.pi, "radians")
        self.gain = within("gain", gain, 0.0, math.pi, "radians")
        self.slope = non_negative("slope", slope)
        self.offset = non_negative("offset", offset)

    def survey(self, c: Tensor, rows: Rows) -> tuple[Tensor, ...]:
        hard = self._hard(c, rows)
        return torch.where(hard, c, 0), hard.to(c.dtype)

    def settle(self, rows: Rows, *sums: Tensor) -> Rows:
        total, count = sums
        margin = self.least_margin + self.gain * total / count.clamp_min(1)
        return Cooperating(rows.t, rows.norm, rows.labels, margin=margin)

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        assert isinstance(rows, Cooperating)
        return torch.where(t > 0, cos_plus(t, rows.margin), t)

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        return torch.where(self._hard(c, rows), self.slope * c + self.offset, c)

    def _hard(self, c: Tensor, rows: Rows) -> Tensor:
        return c > cos_plus(rows.t.detach(), self.margin)[:, None]

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, margin={self.margin}, least_margin={self.least_margin}, gain={self.gain}, "
            f"slope={self.slope}, offset={self.offset}"
        )
