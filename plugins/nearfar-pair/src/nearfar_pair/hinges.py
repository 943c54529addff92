"""The hinges of all triplets of an anchor, summed from its row of distances."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nearfar_pair.sides import FAR, Rows

__all__ = ["hinges"]


def hinges(rows: Rows, margin: float, lower: float = -math.inf, upper: float = math.inf) -> tuple[Tensor, ...]:
    """Of each anchor the sum of ``margin − gap`` where that is above zero, over its triplets, and two counts.

    The gap of a triplet is d(a, n) − d(a, p); of those with ``lower < gap <= upper``. Every decision is made by the
    floating-point expression of :meth:`~nearfar.nn.selection.TripletRule.holds` and of the hinge itself, negated where
    that is exact, so that ties fall as they do for triplets that are made.

    Returns
    -------
    tuple
        Sums (r,), differentiable; how many triplets there are, and how many cost something, (r,) int64.
    """
    found: tuple[Tensor, ...] = _Hinges.apply(rows.d_ap, rows.d_an, margin, lower, upper)
    sums, selected, active = found
    if lower == -math.inf and upper == math.inf:
        selected = rows.num_positives * rows.num_negatives
    return sums, selected, active


class _Hinges(torch.autograd.Function):
    """One pass over the rows for each place in the table of positives.

    A triplet that costs adds 1 to the coefficient of d(a, p) and takes 1 from that of d(a, n). The sums are piecewise
    linear, so the second derivative is that of the coefficients: zero.
    """

    @staticmethod
    def forward(ctx: Any, d_ap: Tensor, d_an: Tensor, margin: float, lower: float, upper: float) -> Any:
        r, k = d_ap.shape
        selects_all = lower == -math.inf and upper == math.inf
        needs_grad = any(ctx.needs_input_grad)
        sums = d_ap.new_zeros(r, dtype=torch.float64)
        selected_count = torch.zeros(r, dtype=torch.int64, device=d_ap.device)
        tally = torch.empty_like(d_ap)
        coefficients = torch.zeros_like(d_an) if needs_grad else None
        gap, costs = torch.empty_like(d_an), torch.empty_like(d_an)
        selected = costs if selects_all else torch.empty_like(d_an)
        for place in range(k):
            # In place throughout: a buffer newly asked for costs more than what is done with it.
            torch.sub(d_ap[:, place : place + 1], d_an, out=gap)
            if not selects_all:
                # What is far is selected by no finite end, and a place without a positive by none either.
                torch.ge(gap, -min(upper, FAR / 2), out=selected)
                if lower > -math.inf:
                    selected.mul_(torch.lt(gap, -lower, out=costs))
                selected.mul_(torch.gt(d_ap[:, place : place + 1], -FAR))
                selected_count += selected.sum(1).long()
            gap += margin
            torch.gt(gap, 0, out=costs)
            if not selects_all:
                costs.mul_(selected)
            torch.sum(costs, 1, out=tally[:, place])
            if coefficients is not None:
                coefficients -= costs
            sums += gap.mul_(costs).sum(1)
        active = tally.sum(1, dtype=torch.float64).long()  # float32 counts to 2²⁴
        ctx.mark_non_differentiable(selected_count, active)
        ctx.set_materialize_grads(False)
        if coefficients is not None:
            ctx.save_for_backward(tally, coefficients)
        return sums.to(d_ap.dtype), selected_count, active

    @staticmethod
    def backward(ctx: Any, by_sums: Tensor | None, *_: Tensor) -> tuple[Tensor | None, ...]:
        if by_sums is None:
            return (None,) * 5
        tally, coefficients = ctx.saved_tensors
        return tally * by_sums[:, None], coefficients * by_sums[:, None], None, None, None
