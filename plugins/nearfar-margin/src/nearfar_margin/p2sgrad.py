"""P2SGrad: Zhang et al. 2019 (1905.02479)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from nearfar_margin.declaration import Rows
from nearfar_margin.engine_loss import EngineArguments
from nearfar_margin.separate_margin import SeparateMargin

__all__ = ["P2SGrad"]


class P2SGrad(SeparateMargin):
    r"""The loss whose gradient is P2SGrad: cosines in the place of probabilities, without scale or margin.

    .. math::

        L_i = \frac{1}{2} (\cos\theta_{i y_i} - 1)^2 + \frac{1}{2} \sum_{j \ne y_i} \cos^2\theta_{ij},
        \qquad
        \nabla L_i = \sum_j (\cos\theta_{ij} - [j = y_i]) \nabla \cos\theta_{ij}

    The gradient is the paper's; it has no loss, and this is the one that the gradient has.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Zhang, Zhao, Yan, Gao, Wang, Li, Liu (2019). P2SGrad: Refined Gradients for Optimizing Deep Face Models.
    arXiv:1905.02479.
    """

    def __init__(self, num_classes: int, embedding_size: int, **kwargs: Unpack[EngineArguments]) -> None:
        super().__init__(num_classes, embedding_size, scale=1.0, **kwargs)

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return (t - 1).square() / 2

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        return c.square() / 2
