"""Passes over the rows of all anchors, a few at a time, as functions that can be differentiated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.precision import in_full_precision
from nearfar_pair.again import again
from nearfar_pair.row_distance import RowDistance
from nearfar_pair.row_gradients import Pull
from nearfar_pair.row_plan import Plan

__all__ = ["Outputs", "Totals"]


class _Found:
    """The outputs for a few anchors after another.

    They are written where all have their place: kept one by one, they would lie between the large buffers of one turn
    and those of the next, and memory would grow by what no longer fits.
    """

    def __init__(self, plan: Plan) -> None:
        self._size = plan.sides.shape[0]
        self._is_ragged = plan.is_ragged
        self._whole: list[Tensor] = []
        self._parts: list[Sequence[Tensor]] = []

    def add(self, anchors: slice, outputs: Sequence[Tensor]) -> None:
        """Those of these anchors."""
        if self._is_ragged:
            self._parts.append(outputs)
            return
        if not self._whole:
            self._whole = [output.new_empty(self._size, *output.shape[1:]) for output in outputs]
        for whole, output in zip(self._whole, outputs, strict=True):
            whole[anchors] = output.detach()

    def outputs(self) -> tuple[Tensor, ...]:
        """All of them."""
        return tuple(map(torch.cat, zip(*self._parts, strict=True))) if self._is_ragged else tuple(self._whole)


class Outputs(torch.autograd.Function):
    """The outputs of a formula; the backward pass computes the rows once more."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, query: Tensor, reference: Tensor | None, *parameters: Tensor) -> Any:
        distance = RowDistance(plan.distance, query, query if reference is None else reference)
        buffers = plan.buffers(query)
        found = _Found(plan)
        for anchors in plan.chunks():
            found.add(anchors, plan.formula(plan.rows(distance, anchors, buffers), *parameters))
        outputs = found.outputs()
        ctx.mark_non_differentiable(*(output for output in outputs if not output.is_floating_point()))
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        ctx.save_for_backward(query, reference, *parameters)
        return outputs

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *by_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return None, *again(ctx.plan.differentiable, ctx.saved_tensors, by_output)
        query, reference, *parameters = ctx.saved_tensors
        plan: Plan = ctx.plan
        distance = RowDistance(plan.distance, query, query if reference is None else reference)
        pull = Pull(plan, distance, parameters, ctx.needs_input_grad[3:])
        buffers = plan.buffers(query)
        for anchors in plan.chunks():
            rows, outputs = pull.outputs(plan.rows(distance, anchors, buffers))
            pull.add(rows, pull.leaves, outputs, [None if g is None else g[anchors] for g in by_output])
        return None, *pull.finished()


class Totals(torch.autograd.Function):
    """The sums of the first outputs of a formula, whose gradients are taken at once, and all outputs."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, query: Tensor, reference: Tensor | None, *parameters: Tensor) -> Any:
        distance = RowDistance(plan.distance, query, query if reference is None else reference)
        buffers = plan.buffers(query)
        needs = ctx.needs_input_grad
        pulls = [Pull(plan, distance, parameters, needs[3:]) for _ in range(plan.sums if any(needs) else 0)]
        found = _Found(plan)
        for anchors in plan.chunks():
            rows = plan.rows(distance, anchors, buffers)
            if not pulls:
                found.add(anchors, plan.formula(rows, *parameters))
                continue
            if plan.sloped is not None:
                sloped = plan.sloped(rows, *parameters)
                found.add(anchors, sloped.all())
                for i, pull in enumerate(pulls):
                    pull.take(rows, *sloped.pull(*(1.0 if i == j else None for j in range(plan.sums))))
                continue
            rows, outputs = pulls[0].outputs(rows)
            for pull, output in zip(pulls, outputs, strict=False):
                pull.add(rows, pulls[0].leaves, [output], [torch.ones_like(output)], is_last=pull is pulls[-1])
            found.add(anchors, outputs)
        outputs = found.outputs()
        ctx.mark_non_differentiable(*outputs)
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        # Of each sum the gradients by every input, then the inputs.
        ctx.save_for_backward(*(g for pull in pulls for g in pull.finished()), query, reference, *parameters)
        return *(output.sum() for output in outputs[: plan.sums]), *outputs

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *by: Tensor | None) -> tuple[Tensor | None, ...]:
        sums: int = ctx.plan.sums
        count = len(ctx.needs_input_grad) - 1
        if torch.is_grad_enabled():
            return None, *again(ctx.plan.differentiable_sums, ctx.saved_tensors[sums * count :], by[:sums])
        found: list[Tensor | None] = [None] * count
        for i, factor in enumerate(by[:sums]):
            for j, gradient in enumerate(ctx.saved_tensors[i * count : (i + 1) * count]):
                if factor is None or gradient is None:
                    continue
                so_far = found[j]
                found[j] = gradient * factor if so_far is None else so_far.addcmul_(gradient, factor)
        return None, *found
