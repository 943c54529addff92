"""Box losses by compiled kernels, as reducers and as autograd see them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from nearfar.nn import Terms
from nearfar.nn.closed_form import graph_is_kept, refuse_second_derivative
from nearfar_iou.compiled.tier import Formula, kernels

__all__ = ["EXTENTS", "CompiledTerms"]

#: How extents follow from a format's coordinates: low = a c₀ + b c₂ and high = c c₀ + d c₂ along x, likewise along y.
EXTENTS = {
    "xyxy": (-1.0, 0.0, 0.0, 1.0),
    "xywh": (-1.0, 0.0, 1.0, 1.0),
    "cxcywh": (-1.0, 0.5, 1.0, 0.5),
    "ltrb": (1.0, 0.0, 0.0, 1.0),
}
#: Boxes below which a second thread costs more than it saves.
PIECE = 100_000


class CompiledTerms(Terms):
    """One loss for each pair of boxes; their sum comes without the losses.

    Parameters
    ----------
    formula, box_format
        What is computed of pred and target, (n, 4) each, in the memory of the CPU.
    otherwise
        Computes the losses of pred and target, (n,), where numba fails to compile the formula.
    weights
        (n,) without a gradient of their own, or None.
    given
        Further attributes of the terms.
    """

    kind = "element"

    def __init__(
        self,
        formula: Formula,
        box_format: str,
        pred: Tensor,
        target: Tensor,
        otherwise: Callable[[Tensor, Tensor], Tensor],
        *,
        weights: Tensor | None,
        **given: Any,
    ) -> None:
        self._formula, self._extents, self._otherwise = formula, EXTENTS[box_format], otherwise
        self._pred, self._target = pred, target
        self.num_anchors, self.weights = pred.shape[0], weights
        for name, value in given.items():
            setattr(self, name, value)

    @property
    def values(self) -> Tensor:
        return self._values

    @cached_property
    def _values(self) -> Tensor:
        found = self._computed(summed=False)
        if found is not None:
            return found
        values = self._otherwise(self._pred, self._target)
        return values if self.weights is None else values * self.weights

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return (torch.arange(self.num_anchors),)

    @property
    def size(self) -> int:
        return self.num_anchors

    def sum(self) -> Tensor:
        found = None if "_values" in vars(self) else self._computed(summed=True)
        return self._values.sum() if found is None else found

    def sum_over(self, divisor: float) -> Tensor:
        found = None if "_values" in vars(self) else self._computed(summed=True, divisor=divisor)
        return self._values.sum() / divisor if found is None else found

    def count(self) -> Tensor:
        return torch.full((), self.num_anchors, dtype=torch.int64)

    def sum_by_anchor(self) -> Tensor:
        return self.values

    def count_by_anchor(self) -> Tensor:
        return torch.ones(self.num_anchors, dtype=torch.int64)

    def _computed(self, *, summed: bool, divisor: float = 1.0) -> Tensor | None:
        """The losses, or their sum over a number; None where no kernel could be compiled."""
        pred, target, formula = self._pred, self._target, self._formula
        grad = torch.is_grad_enabled()
        for_pred, for_target = grad and pred.requires_grad, grad and target.requires_grad
        double = pred.dtype == torch.float64
        kernel = kernels().compiled(
            formula.name, formula.around, double, for_pred, for_target, self.weights is not None, summed
        )
        if kernel is None:
            return None
        numbers = (*self._extents, *formula.numbers, formula.number, 1 / divisor)
        found: Tensor = _Pass.apply(pred, target, self.weights, kernel, numbers, summed, for_pred, for_target)
        return found


class _Pass(torch.autograd.Function):
    """Losses of boxes (n, 4), or their sum times the last of the numbers, with their gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        target: Tensor,
        weights: Tensor | None,
        kernel: Callable[..., float],
        numbers: tuple[float, ...],
        summed: bool,
        for_pred: bool,
        for_target: bool,
    ) -> Tensor:
        pred, target = pred.contiguous(), target.contiguous()
        by_pred = torch.empty_like(pred) if for_pred else None
        by_target = torch.empty_like(target) if for_target else None
        values = None if summed else pred.new_empty(pred.shape[0])
        weights = None if weights is None else weights.contiguous()
        total = _over_threads(kernel, (pred, target, weights, values, by_pred, by_target), numbers)
        ctx.save_for_backward(by_pred, by_target)
        return pred.new_full((), total * numbers[-1]) if values is None else values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        by_pred, by_target = ctx.saved_tensors
        # What nobody will ask for again may be overwritten, and of a loss that is minimised itself need not even be.
        kept = graph_is_kept()
        if kept or grad.ndim or grad.item() != 1:
            scale, by_each = torch.mul if kept else torch.Tensor.mul_, grad[:, None] if grad.ndim else grad
            by_pred, by_target = (None if saved is None else scale(saved, by_each) for saved in (by_pred, by_target))
        return by_pred, by_target, None, None, None, None, None, None


def _over_threads(
    kernel: Callable[..., float], tensors: tuple[Tensor | None, ...], numbers: tuple[float, ...]
) -> float:
    """The sum that a kernel returns; of many boxes each of torch's threads takes as many.

    Threads are made anew each time: a few microseconds of the milliseconds that they save, and a process may fork.
    """
    pred = tensors[0]
    assert pred is not None
    n = pred.shape[0]
    threads = min(torch.get_num_threads(), n // PIECE)
    if threads <= 1:
        return kernel(*[None if each is None else each.data_ptr() for each in tensors], n, *numbers)
    step = -(-n // threads)
    totals = [0.0] * threads

    def take(part: int) -> None:
        rows = [None if each is None else each[part * step : (part + 1) * step] for each in tensors]
        count = min(step, n - part * step)
        totals[part] = kernel(*[None if each is None else each.data_ptr() for each in rows], count, *numbers)

    others = [Thread(target=take, args=(part,)) for part in range(1, threads)]
    for other in others:
        other.start()
    take(0)
    for other in others:
        other.join()
    return sum(totals)
