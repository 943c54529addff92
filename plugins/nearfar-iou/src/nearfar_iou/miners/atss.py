"""Adaptive training sample selection: Zhang et al. 2020, arXiv:1912.02424."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar_iou.miners.box_matcher import BACKGROUND, Assigned, CornerMatcher, Image

__all__ = ["ATSS"]


class ATSS(CornerMatcher):
    r"""Adaptive training sample selection: a threshold for each target, from the anchors near its centre.

    .. math::

        i \text{ stands for } j \Leftrightarrow
        i \in C_j, \; s_{ij} \ge \mu_j + \sigma_j, \; \text{centre of } i \in G_j

    where C_j are the ``k`` anchors of each level whose centres are nearest to that of target j, and μ and σ the mean
    and the standard deviation of their similarities to it. An anchor that could stand for several stands for the one
    that is nearest. Anchors are the predictions where no ``anchors`` are given, and all of one level without
    ``levels``, (n,) integers.

    Parameters
    ----------
    k : int
        [1..inf] How many anchors of each level are looked at; 9 as in the paper.
    distance : nn.Module, optional
        A similarity of boxes; ``iou`` by default.

    Raises
    ------
    ArgumentError
        ``k`` is less than 1, or ``distance`` one of rotated boxes.

    References
    ----------
    Zhang et al. (2020), arXiv:1912.02424, algorithm 1. The deviation is that of a sample, with k − 1, as in the
    authors' code. Deviations: none.
    """

    optional_inputs: ClassVar[tuple[str, ...]] = (*CornerMatcher.optional_inputs, "levels")

    def __init__(self, k: int = 9, *, distance: nn.Module | None = None) -> None:
        super().__init__(distance=distance)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ArgumentError(f"ATSS: k must be a whole number of at least 1; got {k!r}")
        self.k = k

    def assign(self, image: Image) -> Assigned:
        table = self.similarity(image.anchors, image.target)
        centres = self.centres(image.anchors)
        near = self._candidates(centres, self.centres(image.target), image.levels)
        count = near.sum(0)
        mean = torch.where(near, table, 0).sum(0) / count
        spread = torch.where(near, (table - mean).square(), 0).sum(0) / (count - 1).clamp_min(1)
        positive = near & (table >= mean + spread.sqrt()) & self.is_inside(centres, image.target)
        nearest, own = table.masked_fill(~positive, -torch.inf).max(1)
        return Assigned(torch.where(nearest > -torch.inf, own, BACKGROUND))

    def _candidates(self, centres: Tensor, targets: Tensor, levels: Tensor | None) -> Tensor:
        """(n, m): which anchors are looked at for which target."""
        apart = (centres[:, None] - targets).square().sum(2)
        near = torch.zeros_like(apart, dtype=torch.bool)
        parts = [slice(None)] if levels is None else [(levels == each).nonzero()[:, 0] for each in torch.unique(levels)]
        for part in parts:
            of_level = apart[part]
            # Stable, so that of anchors equally far the first are taken.
            order = of_level.argsort(dim=0, stable=True)[: self.k]
            near[part] = torch.zeros_like(of_level, dtype=torch.bool).scatter_(0, order, True)
        return near

    def extra_repr(self) -> str:
        return f"k={self.k}"
