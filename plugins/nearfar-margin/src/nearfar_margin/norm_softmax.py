"""NormFace: Wang et al. 2017 (1704.06369); the bound of the scale: CosFace, Wang et al. 2018 (1801.09414)."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import nn

from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.scales import scale_of

__all__ = ["NormSoftmax"]


class NormSoftmax(MarginSoftmax):
    r"""Softmax on scaled cosines, without a margin: NormFace, NSL.

    .. math::

        L_i = -\log \frac{e^{s \cos\theta_{i y_i}}}{\sum_j e^{s \cos\theta_{ij}}}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    scale : float or "auto"
        (0..inf] What the cosines are multiplied with, s; 30 as in AM-Softmax (1801.05599). "auto" takes CosFace's lower
        bound for a probability of 0.99, :func:`~nearfar_margin.scales.least_scale`.
    learn_scale : bool
        Whether s is a parameter that starts there, as in NormFace; nothing keeps it positive but the loss.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        The scale is not positive, or neither a number nor "auto".
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Wang, Xiang, Cheng, Yuille (2017). NormFace: L2 Hypersphere Embedding for Face Verification. arXiv:1704.06369.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        scale: float | Literal["auto"] = 30.0,
        learn_scale: bool = False,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        number = scale_of("NormSoftmax", scale, num_classes)
        super().__init__(num_classes, embedding_size, scale=number, **kwargs)
        if learn_scale:
            self.scale = nn.Parameter(torch.tensor(number))
