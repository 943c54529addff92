"""The sum of what anchors cost, as autograd sees it: its gradients are made with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.precision import in_full_precision
from nearfar_pair.compiled.work import Compared, Work

__all__ = ["Costs", "summed"]

#: Writes the costs (n,) of what is compared; gives, where that is wanted, the gradients of their sum by the embeddings,
#: and by the reference where it is another.
Costs = Callable[[Compared, Tensor, bool], list[Tensor]]


def summed(work: Work, costs: Tensor, written: Costs) -> Tensor:
    """The sum of costs that are yet to be written to ``costs`` (n,), differentiable."""
    total: Tensor = _Sum.apply(work, costs, written, *work.given)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: Work, costs: Tensor, written: Costs, *given: Tensor) -> Tensor:
        gradients = written(Compared(work, given), costs, any(ctx.needs_input_grad))
        ctx.work = work
        ctx.save_for_backward(*given, *gradients)
        return costs.sum(dtype=torch.float64).to(costs.dtype)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        count, saved = len(ctx.needs_input_grad) - 3, ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, None, None, *ctx.work.again(saved[:count], (by,))
        return None, None, None, *(g * by for g in saved[count:])
