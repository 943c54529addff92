"""The cross entropy of scaled cosines to one proxy a class, a block of classes at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.nn.closed_form import refuse_second_derivative
from nearfar.nn.memory import gradient_like
from nearfar.nn.precision import in_full_precision
from nearfar.nn.products import add_product, product
from nearfar_proxy.blocks import LOG2_E, blocks, own_columns
from nearfar_proxy.directions import directions, through_directions
from nearfar_proxy.ranks import Share

__all__ = ["STEEPEST", "cosine_cross_entropy"]

#: The largest scale: the exponentials of cosines times it, from e^−40 to e^40, and their sums are far from either end
#: of float32, so that no greatest has to be looked for.
STEEPEST = 40.0


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
    """Exponentials are computed again for the gradient: their number is batch × classes."""

    @staticmethod
    def forward(
        ctx: Any, units: Tensor, weight: Tensor, labels: Tensor, scale: float, others: bool, share: Share | None
    ) -> Tensor:
        labels = labels if share is None else labels - share.start
        scaled = units * (scale * LOG2_E)
        total, own = units.new_zeros(len(units)), units.new_zeros(len(units))
        inverses = weight.new_empty(len(weight), 1)
        for block in blocks(len(units), weight):
            exponentials = product(scaled, directions(weight[block], inverses[block]).T)
            column, inside = own_columns(labels, block)
            at = exponentials.gather(1, column)
            own = torch.where(inside[:, 0], at[:, 0], own)
            exponentials.exp2_()
            if others:
                exponentials.scatter_(1, column, exponentials.gather(1, column).masked_fill_(inside, 0))
            total += exponentials.sum(1)
        if share is not None:
            share.sum(total)
            share.sum(own)
        ctx.save_for_backward(units, weight, inverses, labels, total)
        ctx.scale, ctx.others = scale, others
        return total.log() - own / LOG2_E

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        units, weight, inverses, labels, total = ctx.saved_tensors
        by_units = torch.zeros_like(units) if ctx.needs_input_grad[0] else None
        by_weight = gradient_like(weight) if ctx.needs_input_grad[1] else None
        scaled = units * (ctx.scale * LOG2_E)
        # What rows of exponentials are multiplied with: their products with matrices are instead, which are smaller.
        factor = (grad * ctx.scale / total)[:, None]
        drawn = units * factor
        for block in blocks(len(units), weight):
            proxies = weight[block] * inverses[block]
            shares = product(scaled, proxies.T).exp2_()
            column, inside = own_columns(labels, block)
            at = shares.gather(1, column)
            shares.scatter_(1, column, torch.where(inside, (0 if ctx.others else at) - total[:, None], at))
            if by_units is not None:
                add_product(by_units, shares, proxies)
            if by_weight is not None:
                through_directions(product(shares.T, drawn), proxies, inverses[block], by_weight[block])
        if by_units is not None:
            by_units *= factor
        return by_units, by_weight, None, None, None, None
