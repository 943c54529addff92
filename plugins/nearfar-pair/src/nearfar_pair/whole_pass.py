"""The sums of a formula over a whole small batch, with their gradients, in few steps.

Of a small batch calling torch costs more than its work, and recording a graph of many steps as much again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.nn.precision import in_full_precision
from nearfar_pair.again import again
from nearfar_pair.points import Points
from nearfar_pair.row_distance import RowDistance
from nearfar_pair.row_plan import Plan
from nearfar_pair.sides import Rows

__all__ = ["WholeTotals"]


class WholeTotals(torch.autograd.Function):
    """The sums of the first outputs of a formula of all rows, by embeddings that are not normalised yet.

    What was found is left in the plan's :attr:`~nearfar_pair.row_plan.Plan.found`.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, query: Tensor, reference: Tensor | None, *parameters: Tensor) -> Any:
        normalize = plan.distance.normalize_embeddings
        ctx.ends = ends = [Points(x, normalize=normalize) for x in (query, reference) if x is not None]
        ctx.distance = distance = RowDistance(plan.distance, ends[0].points, ends[-1].points)
        d = distance.whole()
        # Of what has a root, distances are asked for once more.
        ctx.root = d if distance.has_root else None
        ctx.rows = rows = plan.sides.whole(d)
        assert plan.sloped is not None
        plan.found = found = plan.sloped(rows, *parameters)
        ctx.pull = found.pull
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, reference, *parameters)
        return tuple(output.sum() for output in found.outputs)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *by: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(g is None for g in by):
            return (None,) * len(ctx.needs_input_grad)
        given = ctx.saved_tensors  # which refuses what was written to meanwhile
        if torch.is_grad_enabled():
            return None, *again(ctx.plan.differentiable_sums, given, by)
        by_ap, by_an, *by_parameters = ctx.pull(*by)
        weight = _joined(ctx.rows, by_ap, by_an)
        if weight is None:
            return None, None, None, *by_parameters
        found = [end.back(g) for end, g in zip(ctx.ends, ctx.distance.pulled(weight, ctx.root), strict=True)]
        return None, *found, *([None] * (2 - len(found))), *by_parameters


def _joined(rows: Rows, by_ap: Tensor | None, by_an: Tensor | None) -> Tensor | None:
    """(n, m) the gradient by the distances, of those by the positives' and the negatives'."""
    if by_ap is None:
        return by_an
    if rows.is_wide:
        return by_ap if by_an is None else by_ap + by_an
    weight = torch.zeros_like(rows.d_an) if by_an is None else by_an
    return weight.scatter_add(1, rows.positives, by_ap)
