"""NormFace: Wang et al. 2017 (1704.06369); the bound of the scale: CosFace, Wang et al. 2018 (1801.09414)."""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from torch import nn

from nearfar.errors import ArgumentError
from nearfar_margin.engine_loss import EngineArguments
from nearfar_margin.margin_softmax import MarginSoftmax

__all__ = ["NormSoftmax", "least_scale"]


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
        (0..inf] What the cosines are multiplied with, s; 30 as in AM-Softmax (1801.05599). "auto" takes
        :func:`least_scale`, CosFace's lower bound for a probability of 0.99.
    learn_scale : bool
        Whether s is a parameter that starts there, as in NormFace; nothing keeps it positive but the loss.

    Notes
    -----
    ``centers``, ``engine``, ``memory_budget`` and ``reducer`` are those of
    :class:`~nearfar_margin.margin_softmax.MarginSoftmax`.

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
        **kwargs: Unpack[EngineArguments],
    ) -> None:
        if isinstance(scale, str):
            if scale != "auto":
                raise ArgumentError(f"NormSoftmax: scale must be a number or 'auto'; got {scale!r}")
            scale = least_scale(num_classes)
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        if learn_scale:
            self.scale = nn.Parameter(torch.tensor(float(scale)))


def least_scale(num_classes: int, probability: float = 0.99) -> float:
    """The least scale at which every sample can reach ``probability``: CosFace's (C − 1)/C · ln((C − 1)P/(1 − P)).

    It assumes class weights spread as far as a simplex allows and no margin; a margin needs more.

    Parameters
    ----------
    num_classes
        C, at least 2.
    probability
        P, the probability of the own class, above 1/C.

    Raises
    ------
    ArgumentError
        There is one class only, or the probability is no more than chance.
    """
    if num_classes < 2 or not 1 / num_classes < probability < 1:
        raise ArgumentError(
            f"the least scale needs two classes at least, and a probability between chance and 1; "
            f"got num_classes={num_classes}, probability={probability}"
        )
    c, p = num_classes, probability
    return (c - 1) / c * math.log((c - 1) * p / (1 - p))
