"""Modified softmax: the loss that SphereFace starts from, Liu et al. 2017 (1704.08063), section 3.1."""

from __future__ import annotations

from typing import Unpack

from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax

__all__ = ["ModifiedSoftmax"]


class ModifiedSoftmax(MarginSoftmax):
    r"""Softmax on unit class vectors without a bias; the lengths of the embeddings stay.

    .. math::

        L_i = -\log \frac{e^{\|x_i\| \cos\theta_{i y_i}}}{\sum_j e^{\|x_i\| \cos\theta_{ij}}}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. The value depends on the length of the embeddings. A reference set is not taken; what
    a miner selects weighs the elements.

    Raises
    ------
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Liu, Wen, Yu, Li, Raj, Song (2017). SphereFace: Deep Hypersphere Embedding for Face Recognition.
    arXiv:1704.08063, section 3.1.
    """

    times_norm = True

    def __init__(self, num_classes: int, embedding_size: int, **kwargs: Unpack[CommonArguments]) -> None:
        super().__init__(num_classes, embedding_size, scale=1.0, **kwargs)
