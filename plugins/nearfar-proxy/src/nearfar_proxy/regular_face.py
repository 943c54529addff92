"""RegularFace: Zhao et al., CVPR 2019."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.nn.vectors import unit
from nearfar_proxy.blocks import blocks
from nearfar_proxy.regularized import Regularized

__all__ = ["RegularFace"]


class RegularFace(Regularized):
    r"""A loss with class weights, each of which also costs its cosine to the nearest other.

    .. math:: L + \lambda \frac{1}{C} \sum_j \max_{k \ne j} \frac{w_j \cdot w_k}{\lVert w_j \rVert \lVert w_k \rVert}

    Parameters
    ----------
    loss : nn.Module
        A loss with ``weight`` (num_classes, embedding_size): a margin softmax, or one of proxies.
    factor : float
        [0..inf] λ; 1 here, to be chosen: the paper has no default.
    reducer : nn.Module, optional
        Reduction of the loss's terms and of the cosines, which are added; that of ``loss`` unless given.

    Notes
    -----
    Called as ``loss`` is. The nearest classes are looked for in blocks, so nothing of size C × C is held; of several
    that are equally near the one of the lowest class is taken. With one class it costs nothing.

    Raises
    ------
    ArgumentError
        ``loss`` has no class weights, or ``factor`` is negative.

    References
    ----------
    Zhao, Xu, Cheng (2019). RegularFace: Deep Face Recognition via Exclusive Regularization. CVPR, equation 5.
    """

    def __init__(self, loss: nn.Module, factor: float = 1.0, *, reducer: nn.Module | None = None) -> None:
        super().__init__(loss, factor, reducer=reducer)

    def costs(self, weight: Tensor) -> Tensor:
        if len(weight) < 2:
            return (weight * 0).sum(1)
        units, _ = unit(weight)
        return (units * units[_nearest(units.detach())]).sum(1)


def _nearest(units: Tensor) -> Tensor:
    """(c,) the row, not itself, to which each of the unit vectors (c, d) has the largest cosine."""
    found = []
    for block in blocks(len(units), units):
        cosines = units[block] @ units.T
        cosines.diagonal(block.start).fill_(-torch.inf)
        found.append(cosines.argmax(1))
    return torch.cat(found)
