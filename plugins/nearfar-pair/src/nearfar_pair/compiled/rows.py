"""Costs of anchors by kernels: each is of one row of distances, and its slopes are made with it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from nearfar_pair.compiled.sums import summed
from nearfar_pair.compiled.tier import kernel
from nearfar_pair.compiled.work import Compared, Gradients, Work

__all__ = ["RowLoop"]


class RowLoop(NamedTuple):
    """A kernel that turns the products of an anchor into slopes, and gives its cost and a count.

    Attributes
    ----------
    name
        Of the kernel.
    numbers
        Its parameters.
    found
        Makes of costs (n,) and counts (n,) the outputs of the same pass by torch.
    """

    name: str
    numbers: tuple[float, float, float, float, float]
    found: Callable[[Tensor, Tensor, Work], Sequence[Tensor]]

    @property
    def kernels(self) -> tuple[str, ...]:
        return (self.name,)

    def run(self, work: Work) -> tuple[tuple[Tensor, ...], Sequence[Tensor]]:
        n, like = work.own.shape[0], work.given[0]
        costs, counts = like.new_empty(n), work.own.new_empty(n)
        total = summed(work, costs, functools.partial(self._written, counts))
        return (total,), self.found(costs, counts, work)

    def _written(self, counts: Tensor, compared: Compared, costs: Tensor, needs_grad: bool) -> list[Tensor]:
        gradients, buffer = Gradients(compared), compared.buffer()
        for anchors in compared.chunks():
            count = anchors.stop - anchors.start
            p = compared.products(anchors, buffer if len(buffer) == count else buffer[:count])
            compared.each_row(self.name, p, anchors, (costs, counts, gradients.of_x), *self.numbers)
            if needs_grad:
                kernel("columns")(p.data_ptr(), gradients.of_y.data_ptr(), *p.shape)
                gradients.add(anchors, p)
        return gradients.finished()
