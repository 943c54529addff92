"""What pushes every proxy and the samples of other classes apart, a block of proxies at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.nn.closed_form import graph_is_kept, refuse_second_derivative
from nearfar.nn.vectors import through_unit, unit
from nearfar_proxy.blocks import blocks

__all__ = ["repulsion"]


def repulsion(
    units: Tensor, weight: Tensor, labels: Tensor, log_weights: Tensor | None, *, scale: float, margin: float
) -> Tensor:
    r"""For each proxy p, :math:`\log(1 + \sum_{x: y_x \ne p} w_x e^{\alpha (\cos(x, p) + \delta)})`: (num_classes,).

    Parameters
    ----------
    units
        (n, d) embeddings of length one.
    weight
        (num_classes, d) proxies of any length.
    labels
        (n,) class ids.
    log_weights
        (n,) logarithms of the weights, −inf for none; without a gradient. None for 1.
    scale, margin
        α and δ.
    """
    if not len(units):
        return (weight * 0).sum(1)
    setting = _Setting(labels, log_weights, scale, margin)
    if not torch.is_grad_enabled():
        units, weight = units.detach(), weight.detach()
    values: Tensor = _Repulsion.apply(units, weight, setting)
    return values


class _Setting(NamedTuple):
    labels: Tensor
    log_weights: Tensor | None
    scale: float
    margin: float

    def exponents(self, units: Tensor, proxies: Tensor, block: slice) -> Tensor:
        """(n, k) of a block of k proxies; −inf at those of a sample's own class."""
        found = (units @ proxies.T).add_(self.margin).mul_(self.scale)
        if self.log_weights is not None:
            found += self.log_weights[:, None]
        own = self.labels - block.start
        inside = (own >= 0) & (own < len(proxies))
        # Where a sample's own proxy is in another block, what is written is what was there.
        at = torch.where(inside, own, 0)[:, None]
        return found.scatter_(1, at, found.gather(1, at).masked_fill_(inside[:, None], -torch.inf))


class _Repulsion(torch.autograd.Function):
    """Takes the gradients along with the value, for proxies that weigh alike; for others it starts again.

    What a reducer such as the mean hands back is one number for all, which a gradient is multiplied with.
    """

    @staticmethod
    def forward(ctx: Any, units: Tensor, weight: Tensor, setting: _Setting) -> Tensor:
        values = weight.new_empty(len(weight))
        by_units = torch.zeros_like(units) if ctx.needs_input_grad[0] else None
        by_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for block in blocks(len(units), weight):
            proxies, lengths = unit(weight[block])
            exponents = setting.exponents(units, proxies, block)
            values[block] = torch.nn.functional.softplus(exponents.logsumexp(0), threshold=50)
            if by_units is None and by_weight is None:
                continue
            shares = exponents.sub_(values[block]).exp_().mul_(setting.scale)
            _collect(shares, units, proxies, lengths, block, by_units, by_weight)
        ctx.save_for_backward(units, weight)
        ctx.setting, ctx.known = setting, (by_units, by_weight)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        refuse_second_derivative()
        known = ctx.known
        if len(grad) == 1 or grad.stride() == (0,):
            multiply = torch.mul if graph_is_kept() else Tensor.mul_
            by_units, by_weight = (None if by is None else multiply(by, grad[0]) for by in known)
            return by_units, by_weight, None
        units, weight = ctx.saved_tensors
        by_units, by_weight = (None if by is None else torch.zeros_like(by) for by in known)
        for block in blocks(len(units), weight):
            proxies, lengths = unit(weight[block])
            exponents = ctx.setting.exponents(units, proxies, block)
            values = torch.nn.functional.softplus(exponents.logsumexp(0), threshold=50)
            shares = exponents.sub_(values).exp_().mul_(ctx.setting.scale * grad[block])
            _collect(shares, units, proxies, lengths, block, by_units, by_weight)
        return by_units, by_weight, None


def _collect(
    shares: Tensor,
    units: Tensor,
    proxies: Tensor,
    lengths: Tensor,
    block: slice,
    by_units: Tensor | None,
    by_weight: Tensor | None,
) -> None:
    """Add what a block of proxies has to the gradient by the embeddings, and write its own."""
    if by_units is not None:
        by_units.addmm_(shares, proxies)
    if by_weight is not None:
        by_weight[block] = through_unit(shares.T @ units, proxies, lengths)
