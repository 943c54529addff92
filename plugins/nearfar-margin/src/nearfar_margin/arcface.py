"""ArcFace: Deng et al. 2019 (1801.07698), in each of the three forms that go by that name."""

from __future__ import annotations

import math
from typing import Literal, Unpack

from torch import Tensor

from nearfar.nn.arguments import check_choice, within
from nearfar_margin.angles import cos_plus, widened
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.scales import scale_of

__all__ = ["ArcFace"]


class ArcFace(MarginSoftmax):
    r"""Additive angular margin: the target's angle is widened by m.

    .. math::

        L_i = -\log \frac{e^{s \psi(\theta_{i y_i})}}
                         {e^{s \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s \cos\theta_{ij}}},
        \qquad
        \psi(\theta) = \begin{cases} \cos(\theta + m) & \theta + m < \pi \\ \cos\theta - m \sin m & \text{else}
        \end{cases}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [radians, 0..pi] Additive angular margin m; 0.5 as in the paper.
    scale : float or "auto"
        (0..inf] What the logits are multiplied with, s; 64 as in the paper. "auto": the least with which a probability
        of 0.99 can be reached in spite of the margin, :func:`~nearfar_margin.scales.least_scale`.
    gradient : {"exact", "detached"}
        ``exact``: the gradient of the formula. ``detached``: ψ changes the value only and passes the gradient as
        if it were cos θ, as insightface's code does since December 2022.
    beyond_pi : {"linear", "raw"}
        The target beyond θ + m = π, where cos(θ + m) would rise again: ``linear``, cos θ − m sin m, as in the
        authors' first code (it falls, after a jump down at π − m); ``raw``, cos(θ + m) as in the paper.
    easy_margin : bool
        Whether the margin applies to angles below π/2 only, and cos θ stays as it is beyond (a jump up); then
        ``beyond_pi`` plays no part.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. A reference set is not taken; what a miner selects weighs the elements.

    Published programs differ in the last three arguments; each is a preset.

    Raises
    ------
    ArgumentError
        ``gradient`` or ``beyond_pi`` is none of its choices, the margin is out of its range, or so large that no scale
        is enough, or the scale is neither a number above 0 nor "auto".
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Deng, Guo, Yang, Xue, Kotsia, Zafeiriou (2019). ArcFace: Additive Angular Margin Loss for Deep Face
    Recognition. arXiv:1801.07698.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.5,
        scale: float | Literal["auto"] = 64.0,
        gradient: Literal["exact", "detached"] = "exact",
        beyond_pi: Literal["linear", "raw"] = "linear",
        easy_margin: bool = False,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        own = math.cos(within("margin", margin, 0.0, math.pi, "radians"))
        number = scale_of(type(self).__name__, scale, num_classes, own=own)
        super().__init__(num_classes, embedding_size, scale=number, **kwargs)
        self.margin = margin
        self.gradient = check_choice(self, "gradient", gradient, ("exact", "detached"))
        self.beyond_pi = check_choice(self, "beyond_pi", beyond_pi, ("linear", "raw"))
        self.easy_margin = easy_margin
        self.detached = gradient == "detached"

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        if self.beyond_pi == "raw" and not self.easy_margin:
            return cos_plus(t, self.margin)
        return widened(t, self.margin, easy=self.easy_margin)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, margin={self.margin}, gradient={self.gradient!r}, "
            f"beyond_pi={self.beyond_pi!r}, easy_margin={self.easy_margin}"
        )
