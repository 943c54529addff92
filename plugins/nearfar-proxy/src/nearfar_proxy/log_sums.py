"""The logarithms of summed exponentials of inner products, a tile of rows by columns at a time."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.closed_form import refuse_second_derivative
from nearfar.nn.precision import in_full_precision
from nearfar.nn.products import add_product, product
from nearfar_proxy.blocks import LOG2_E, add_powers, held

__all__ = ["log_sum_exp"]


def log_sum_exp(rows: Tensor, columns: Tensor) -> Tensor:
    r""":math:`\log \sum_j e^{r_i \cdot c_j}`, (m,), of ``rows`` (m, d) and ``columns`` (c, d).

    Nothing of size m × c is held; products are computed a second time for the gradient.
    """
    if not torch.is_grad_enabled():
        rows, columns = rows.detach(), columns.detach()
    values: Tensor = _LogSumExp.apply(rows, columns)
    return values


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor) -> Tensor:
        # Squares: of all tiles of a size they are read for the most work.
        side = math.isqrt(held(rows))
        found = []
        for some in torch.split(rows, side):
            scaled = some * LOG2_E
            top, total = scaled.new_full((len(some),), -torch.inf), scaled.new_zeros(len(some))
            for others in torch.split(columns, side):
                top, total = add_powers(top, total, product(scaled, others.T), 1)
            found.append(top + total.log2())
        logs = torch.cat(found)
        ctx.save_for_backward(rows, columns, logs)
        return logs / LOG2_E

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        refuse_second_derivative()
        rows, columns, logs = ctx.saved_tensors
        side = math.isqrt(held(rows))
        by_rows, by_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        for start in range(0, len(rows), side):
            own = slice(start, start + side)
            scaled, weighted = rows[own] * LOG2_E, rows[own] * grad[own, None]
            for others, by_others in zip(torch.split(columns, side), torch.split(by_columns, side), strict=True):
                shares = product(scaled, others.T).sub_(logs[own, None]).exp2_()
                add_product(by_rows[own], shares, others)
                add_product(by_others, shares.T, weighted)
        return by_rows.mul_(grad[:, None]), by_columns
