"""MagFace: Meng et al. 2021 (2103.06627)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

from torch import Tensor

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import non_negative, positive, within
from nearfar.nn.vectors import unit
from nearfar_margin.angles import widened
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax

__all__ = ["MagFace"]


@dataclass(frozen=True, slots=True)
class Margins(Rows):
    """With the margin of each sample in radians, (n,)."""

    margin: Tensor


class MagFace(MarginSoftmax):
    r"""ArcFace whose margin grows with the length of the embedding, which is rewarded: long means easy to recognise.

    .. math::

        L_i = -\log \frac{e^{s \psi(\theta_{i y_i})}}
                         {e^{s \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s \cos\theta_{ij}}}
              + \lambda \left(\frac{a_i}{u_a^2} + \frac{1}{a_i}\right),
        \qquad \psi(\theta) = \cos(\theta + m(a_i)),
        \quad m(a) = l_m + \frac{u_m - l_m}{u_a - l_a} (a - l_a)

    with a the length of the embedding, kept in l_a … u_a.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    shortest : float
        (0..inf] Length with the least margin, l_a; 10 as in the paper.
    longest : float
        (0..inf] Length with the greatest margin, u_a; 110 as in the paper.
    least_margin : float
        [radians, 0..pi] l_m; 0.45 as in the paper.
    greatest_margin : float
        [radians, 0..pi] u_m; 0.8 as in the paper.
    regularization : float
        [0..inf] λ; 35 as in the paper and the authors' run.sh. Below 22.6, at the other defaults, the paper's proof
        that there is one best length does not hold; the default of the authors' program is 20.
    scale : float
        (0..inf] What the logits are multiplied with, s; 64 as in the paper.
    easy_margin : bool
        Whether the margin applies to angles below π/2 only, as in the authors' code; otherwise the target beyond
        θ + m = π is cos θ − m sin m.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. The value depends on the length of the embeddings, and so does the gradient, through
    the margin too. A network whose embeddings are shorter than ``shortest`` gets no gradient of their length: the
    authors' ends in a batch normalisation. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        A number is out of its range, or a least one is not below its greatest one.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Meng, Zhao, Huang, Zhou (2021). MagFace: A Universal Representation for Face Recognition and Quality Assessment.
    arXiv:2103.06627.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        shortest: float = 10.0,
        longest: float = 110.0,
        least_margin: float = 0.45,
        greatest_margin: float = 0.8,
        regularization: float = 35.0,
        scale: float = 64.0,
        easy_margin: bool = True,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self.shortest, self.longest = positive("shortest", shortest), positive("longest", longest)
        if not shortest < longest:
            raise ArgumentError(f"MagFace: shortest must be below longest; got {shortest!r} and {longest!r}")
        self.least_margin = within("least_margin", least_margin, 0.0, math.pi, "radians")
        self.greatest_margin = within("greatest_margin", greatest_margin, 0.0, math.pi, "radians")
        if least_margin > greatest_margin:
            raise ArgumentError(
                f"MagFace: least_margin must not be above greatest_margin; got {least_margin!r} and {greatest_margin!r}"
            )
        self.regularization = non_negative("regularization", regularization)
        self.easy_margin = easy_margin

    def prepare(self, rows: Rows) -> Rows:
        slope = (self.greatest_margin - self.least_margin) / (self.longest - self.shortest)
        margin = self.least_margin + slope * (self._length(rows.norm) - self.shortest)
        return Margins(rows.t, rows.norm, rows.labels, margin=margin)

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        assert isinstance(rows, Margins)
        return widened(t, rows.margin, easy=self.easy_margin)

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        a = self._length(unit(embeddings)[1])
        return super().losses(embeddings, labels) + self.regularization * (a / self.longest**2 + 1 / a)

    def _length(self, norm: Tensor) -> Tensor:
        return norm.clamp(self.shortest, self.longest)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, length={self.shortest:g}..{self.longest:g}, "
            f"margin={self.least_margin}..{self.greatest_margin}, regularization={self.regularization:g}, "
            f"easy_margin={self.easy_margin}"
        )
