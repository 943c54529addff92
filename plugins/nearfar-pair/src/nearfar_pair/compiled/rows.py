"""Costs of anchors by kernels: each is of one row of distances, and its slopes are made with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.nn.precision import in_full_precision
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
        total = _Sum.apply(self, work, costs, counts, *work.given)
        return (total,), self.found(costs, counts, work)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loop: RowLoop, work: Work, costs: Tensor, counts: Tensor, *given: Tensor) -> Tensor:
        compared = Compared(work, given)
        gradients, buffer = Gradients(compared), compared.buffer()
        for anchors in compared.chunks():
            p = compared.products(anchors, buffer[: anchors.stop - anchors.start])
            compared.each_row(loop.name, p, anchors, (costs, counts, gradients.of_x), *loop.numbers)
            if any(ctx.needs_input_grad):
                kernel("columns")(p.data_ptr(), gradients.of_y.data_ptr(), *p.shape)
                gradients.add(anchors, p)
        ctx.work = work
        ctx.save_for_backward(*given, *gradients.finished())
        return costs.sum(dtype=torch.float64).to(costs.dtype)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.needs_input_grad) - 4
        given, gradients = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        if torch.is_grad_enabled():
            return None, None, None, None, *ctx.work.again(given, (by,))
        return None, None, None, None, *(g * by for g in gradients)
