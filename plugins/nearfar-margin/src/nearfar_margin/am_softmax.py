"""AM-Softmax: Wang et al. 2018 (1801.05599)."""

from __future__ import annotations

from typing import Literal, Unpack

from nearfar_margin.cosface import CosFace
from nearfar_margin.margin_softmax import CommonArguments

__all__ = ["AMSoftmax"]


class AMSoftmax(CosFace):
    r"""Additive margin softmax: the function of CosFace with a smaller scale, found at the same time.

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
        (0..inf] What the logits are multiplied with, s; 30 as in the paper. "auto": the least with which a probability
        of 0.99 can be reached in spite of the margin, :func:`~nearfar_margin.scales.least_scale`. "norm": the length
        of each embedding takes its place.

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
    Wang, Cheng, Liu, Liu (2018). Additive Margin Softmax for Face Verification. arXiv:1801.05599.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.35,
        scale: float | Literal["auto", "norm"] = 30.0,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, margin=margin, scale=scale, **kwargs)
