"""ElasticFace: Boutros et al. 2022 (2109.09416)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Unpack

import torch
from torch import Tensor

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice, non_negative, within
from nearfar_margin.angles import cos_plus
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.noise import counted_normal

__all__ = ["ElasticFace"]


@dataclass(frozen=True, slots=True)
class Margins(Rows):
    """With the margin of each sample, (n,)."""

    margin: Tensor


class ElasticFace(MarginSoftmax):
    r"""A margin drawn anew for each sample, so that no class is pushed harder than it can follow.

    .. math::

        L_i = -\log \frac{e^{s \psi_i(\theta_{i y_i})}}
                         {e^{s \psi_i(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s \cos\theta_{ij}}},
        \qquad
        \psi_i(\theta) = \begin{cases} \cos(\theta + m_i) & \text{arc} \\ \cos\theta - m_i & \text{cos} \end{cases},
        \quad m_i \sim \mathcal{N}(m, \sigma^2)

    With ``plus`` the margins of a batch are sorted: the nearer a sample is to its class, the smaller its margin.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    form : {"arc", "cos"}
        ElasticFace-Arc or ElasticFace-Cos.
    margin : float
        [radians or cosine, 0..2] The mean margin m; 0.5 as in the paper for Arc, which has 0.35 for Cos.
    deviation : float
        [radians or cosine, 0..inf] Standard deviation σ of the margins; 0.05 as in the paper, which has 0.0175 for
        Arc+ and 0.02 for Cos+.
    plus : bool
        Whether the margins of a batch are sorted: ElasticFace-Arc+ and ElasticFace-Cos+.
    scale : float
        (0..inf] What the logits are multiplied with, s; 64 as in the paper.
    seed : int
        [0..inf] Which margins are drawn: they are a function of it, of the number of the call and of the place in the
        batch.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. ``step`` is a buffer that counts the calls in training mode; in evaluation mode every
    margin is m. No generator is used: a resumed run draws what it would have drawn, and ranks that hold one batch draw
    the same. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        ``form`` is none of its choices, a number is out of its range, or the seed is no whole number.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Boutros, Damer, Kirchbuchner, Kuijper (2022). ElasticFace: Elastic Margin Loss for Deep Face Recognition.
    arXiv:2109.09416.
    """

    step: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        form: Literal["arc", "cos"] = "arc",
        margin: float = 0.5,
        deviation: float = 0.05,
        plus: bool = False,
        scale: float = 64.0,
        seed: int = 0,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self.form = check_choice(self, "form", form, ("arc", "cos"))
        self.margin = within("margin", margin, 0.0, 2.0)
        self.deviation = non_negative("deviation", deviation)
        self.plus = plus
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise ArgumentError(f"ElasticFace: seed must be a whole number from 0 to 2⁶³ − 1; got {seed!r}")
        self.seed = seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def prepare(self, rows: Rows) -> Rows:
        margin = torch.full_like(rows.t, self.margin)
        if self.training:
            margin += self.deviation * counted_normal(self.seed, self.step, len(margin)).to(margin)
            self.step += 1
        if self.plus:
            nearest_first = rows.t.detach().argsort(descending=True)
            margin = torch.empty_like(margin).index_copy_(0, nearest_first, margin.sort().values)
        return Margins(rows.t, rows.norm, rows.labels, margin=margin)

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        assert isinstance(rows, Margins)
        return cos_plus(t, rows.margin) if self.form == "arc" else t - rows.margin

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, form={self.form!r}, margin={self.margin}, deviation={self.deviation}, "
            f"plus={self.plus}, seed={self.seed}"
        )
