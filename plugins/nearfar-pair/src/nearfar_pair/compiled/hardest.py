"""The hardest triplet of each anchor, and what it costs, by kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nearfar_pair.compiled.sums import summed
from nearfar_pair.compiled.tier import kernel
from nearfar_pair.compiled.work import ROOT, SQUARED, Compared, Work

__all__ = ["KERNELS", "HardestLoop", "hardest"]


#: What it calls.
KERNELS = "hardest", "scatter"


class HardestLoop(NamedTuple):
    """Kernels for what the hardest triplet of each anchor costs.

    Attributes
    ----------
    of, slope
        As of :class:`~nearfar_pair.hardest_triplets.HardestCosts`.
    """

    of: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]

    @property
    def kernels(self) -> tuple[str, ...]:
        return KERNELS

    def run(self, work: Work) -> tuple[tuple[Tensor, ...], Sequence[Tensor]]:
        n, like = work.own.shape[0], work.given[0]
        costs, places = like.new_empty(n), work.own.new_empty(n, 2)
        total = summed(work, costs, functools.partial(self._written, places))
        return (total,), (costs, places[:, 0] >= 0)

    def _written(self, places: Tensor, compared: Compared, costs: Tensor, needs_grad: bool) -> list[Tensor]:
        d_ap, d_an = _look(compared, places)
        excess = d_ap - d_an
        costs.copy_(self.of(excess))
        if not needs_grad:
            return []
        weight = self.slope(excess)
        weights = torch.stack((weight, -weight), 1)
        if compared.kind == ROOT:
            d = torch.stack((d_ap, d_an), 1)
            weights = (weights / d).masked_fill_(d == 0, 0)
        elif compared.kind == SQUARED:
            weights *= 2
        by_x = torch.zeros_like(compared.x)
        by_y = by_x if compared.work.is_self else torch.zeros_like(compared.y)
        tensors = places, weights, compared.x, compared.y, by_x, by_y
        pointers = [each.data_ptr() for each in tensors]
        kernel("scatter")(*pointers, compared.n, compared.m, compared.dim, compared.kind)
        return [end.back(g, None) for end, g in zip(compared.ends, (by_x, by_y), strict=False)]


def hardest(work: Work) -> Tensor:
    """(n, 2) of each anchor the farthest positive and the nearest negative, −1 of one that has not both."""
    places = work.own.new_empty(work.own.shape[0], 2)
    _look(Compared(work, work.given), places)
    return places


def _look(compared: Compared, places: Tensor) -> tuple[Tensor, Tensor]:
    """Write the places; the distances (n,) of the positives and of the negatives."""
    d_ap, d_an = (compared.x.new_empty(compared.n) for _ in range(2))
    buffer = compared.buffer()
    for anchors in compared.chunks():
        p = compared.products(anchors, buffer[: anchors.stop - anchors.start])
        compared.each_row("hardest", p, anchors, (d_ap, d_an), places.data_ptr())
    return d_ap, d_an
