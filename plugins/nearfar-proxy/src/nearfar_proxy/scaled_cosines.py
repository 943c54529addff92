"""The cross entropy of scaled cosines to one proxy a class, a block of classes at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.nn.closed_form import graph_is_kept, refuse_second_derivative
from nearfar.nn.vectors import through_unit, unit
from nearfar_proxy.blocks import blocks, own_columns
from nearfar_proxy.ranks import Share

__all__ = ["STEEPEST", "cosine_cross_entropy"]

#: The largest scale: the exponentials of cosines times it, from e^−40 to e^40, and their sums are far from either end
#: of float32, so that no greatest has to be looked for.
STEEPEST = 40.0
#: So many exponentials are kept for the gradient; more are computed a second time.
KEPT = 2**22


def cosine_cross_entropy(
    units: Tensor,
    weight: Tensor,
    labels: Tensor,
    scale: float,
    *,
    others: bool = False,
    share: Share | None = None,
) -> Tensor:
    r""":math:`\log \sum_j e^{s \cos(x_i, w_j)} - s \cos(x_i, w_{y_i})` of each sample, (n,).

    Parameters
    ----------
    units
        (n, d) embeddings of length one.
    weight
        (c, d) proxies of any length, of this rank's classes where there are ranks.
    labels
        (n,) class ids.
    scale
        s, at most :data:`STEEPEST`.
    others
        Whether the sum leaves out a sample's own class.
    share
        Which classes these are.
    """
    if not torch.is_grad_enabled():
        units, weight = units.detach(), weight.detach()
    values: Tensor = _CrossEntropy.apply(units, weight, labels, scale, others, share)
    return values


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, units: Tensor, weight: Tensor, labels: Tensor, scale: float, others: bool, share: Share | None
    ) -> Tensor:
        labels = labels if share is None else labels - share.start
        scaled = units * scale
        total, own = units.new_zeros(len(units)), units.new_zeros(len(units))
        lengths = weight.new_empty(len(weight))
        keeps = any(ctx.needs_input_grad) and len(units) * len(weight) <= KEPT
        kept = []
        for block in blocks(len(units), weight):
            proxies, lengths[block] = unit(weight[block])
            exponentials = scaled @ proxies.T
            column, inside = own_columns(labels, block)
            at = exponentials.gather(1, column)
            own = torch.where(inside[:, 0], at[:, 0], own)
            exponentials.exp_()
            if others:
                exponentials.scatter_(1, column, exponentials.gather(1, column).masked_fill_(inside, 0))
            total += exponentials.sum(1)
            if keeps:
                kept.append(exponentials)
        if share is not None:
            share.sum(total)
            share.sum(own)
        ctx.save_for_backward(units, weight, lengths, labels, total)
        ctx.scale, ctx.others, ctx.kept = scale, others, kept
        return total.log() - own

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        units, weight, lengths, labels, total = ctx.saved_tensors
        by_units = torch.zeros_like(units) if ctx.needs_input_grad[0] else None
        by_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        scaled = units * ctx.scale
        # What rows of exponentials are multiplied with: their products with matrices are instead, which are smaller.
        factor = (grad * ctx.scale / total)[:, None]
        for number, block in enumerate(blocks(len(units), weight)):
            length = lengths[block]
            proxies = weight[block] * torch.where(length > 0, 1 / length, 0)[:, None]
            if not ctx.kept:
                shares = (scaled @ proxies.T).exp_()
            else:
                shares = ctx.kept[number].clone() if graph_is_kept() else ctx.kept[number]
            column, inside = own_columns(labels, block)
            at = shares.gather(1, column)
            shares.scatter_(1, column, torch.where(inside, (0 if ctx.others else at) - total[:, None], at))
            if by_units is not None:
                by_units.addmm_(shares, proxies)
            if by_weight is not None:
                by_weight[block] = through_unit(shares.T @ (units * factor), proxies, length)
        if by_units is not None:
            by_units *= factor
        return by_units, by_weight, None, None, None, None
