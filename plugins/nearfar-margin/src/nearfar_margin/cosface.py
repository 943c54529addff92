"""CosFace, LMCL: Wang et al. 2018 (1801.09414)."""

from __future__ import annotations

from typing import Literal, Unpack

from torch import Tensor

from nearfar.nn.arguments import within
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.scales import scale_of

__all__ = ["CosFace"]


class CosFace(MarginSoftmax):
    r"""Additive cosine margin: the target's cosine must win by m.

    .. math::

        L_i = -\log \frac{e^{s(\cos\theta_{i y_i} - m)}}
                         {e^{s(\cos\theta_{i y_i} - m)} + \sum_{j \ne y_i} e^{s \cos\theta_{ij}}}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [cosine, 0..2] Additive margin m; 0.35 as in the paper.
    scale : float, "auto" or "norm"
        (0..inf] What the logits are multiplied with, s; 64 as in the paper. "auto": the least with which a probability
        of 0.99 can be reached in spite of the margin, :func:`~nearfar_margin.scales.least_scale`. "norm": the length
        of each embedding takes its place, as where the paper compares with embeddings that are not normalised.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        The scale is neither a number above 0 nor one of the words, or the margin is out of its range, or so large that
        no scale is enough.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu (2018). CosFace: Large Margin Cosine Loss for Deep Face Recognition.
    arXiv:1801.09414.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.35,
        scale: float | Literal["auto", "norm"] = 64.0,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        own = 1 - within("margin", margin, 0.0, 2.0)
        number = scale_of(type(self).__name__, scale, num_classes, own=own, words=("auto", "norm"))
        super().__init__(num_classes, embedding_size, scale=number, **kwargs)
        self.times_norm = scale == "norm"
        self.margin = margin

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return t - self.margin

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margin={self.margin}"
