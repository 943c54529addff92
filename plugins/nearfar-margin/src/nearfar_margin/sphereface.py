"""SphereFace, A-Softmax: Liu et al. 2017 (1704.08063)."""

from __future__ import annotations

from typing import Unpack

from nearfar_margin.margin_softmax import CommonArguments
from nearfar_margin.multiplicative import MultiplicativeMargin

__all__ = ["SphereFace"]


class SphereFace(MultiplicativeMargin):
    r"""Multiplicative angular margin on unit class vectors: the target's angle counts m times.

    .. math::

        L_i = -\log \frac{e^{\|x_i\| \psi(\theta_{i y_i})}}
                         {e^{\|x_i\| \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{\|x_i\| \cos\theta_{ij}}},
        \qquad
        \psi(\theta) = \frac{\lambda \cos\theta + (-1)^k \cos(m\theta) - 2k}{1 + \lambda},
        \quad \theta \in \left[\tfrac{k\pi}{m}, \tfrac{(k+1)\pi}{m}\right]

    with λ = max(lambda_min, lambda_base · (1 + lambda_gamma · step)^−lambda_power).

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : int
        [1..8] What the angle is multiplied with, m; 4 as in the paper.
    lambda_base : float
        [0..inf] λ at the start; 1000 as in the authors' code.
    lambda_gamma : float
        [0..inf] How fast λ falls with the steps; 0.12 as in the authors' code.
    lambda_power : float
        [0..inf] How steeply; 1 as in the authors' code.
    lambda_min : float
        [0..inf] Where λ stops; 5 as in the authors' code, reached after some 1,660 steps. The margin then moves the
        target a sixth of the way only, as an m of about 1.5 would; 0 is the paper's formula.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. The value depends on the length of the embeddings. A step is a call in training mode,
    or of the optimiser where one is followed; the count, ``annealing.steps``, is a buffer, and does not change in
    evaluation mode. cos(mθ) is a polynomial of cos θ, so the gradient is finite everywhere.

    Raises
    ------
    ArgumentError
        The margin is no whole number in 1..8, or a number of the annealing is negative.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Liu, Wen, Yu, Li, Raj, Song (2017). SphereFace: Deep Hypersphere Embedding for Face Recognition.
    arXiv:1704.08063.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: int = 4,
        lambda_base: float = 1000.0,
        lambda_gamma: float = 0.12,
        lambda_power: float = 1.0,
        lambda_min: float = 5.0,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(
            num_classes,
            embedding_size,
            margin=margin,
            lambda_base=lambda_base,
            lambda_gamma=lambda_gamma,
            lambda_power=lambda_power,
            lambda_min=lambda_min,
            **kwargs,
        )
