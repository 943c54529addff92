"""What pushes every proxy and the samples of other classes apart, a block of proxies at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.nn.closed_form import graph_is_kept, refuse_second_derivative
from nearfar.nn.vectors import through_unit, unit
from nearfar_proxy.blocks import blocks, own_columns
from nearfar_proxy.running import sums_by_label

__all__ = ["repulsion"]


def repulsion(
    units: Tensor, weight: Tensor, labels: Tensor, log_weights: Tensor | None, *, scale: float, margin: float
) -> tuple[Tensor, Tensor]:
    r"""What pushes each proxy, (c,), and the cosine of each sample to the proxy of its own class, (n,).

    Of proxy p it is :math:`\log(1 + \sum_{x: y_x \ne p} w_x e^{\alpha (\cos(x, p) + \delta)})`. A sample whose own
    class is not among these has a cosine of 0.

    Parameters
    ----------
    units
        (n, d) embeddings of length one.
    weight
        (c, d) proxies of any length.
    labels
        (n,) class ids: rows of ``weight``, or none of them.
    log_weights
        (n,) logarithms of the weights, −inf for none; without a gradient. None for 1.
    scale, margin
        α and δ.
    """
    if not len(units):
        return (weight * 0).sum(1), units.sum(1)
    setting = _Setting(labels, log_weights, scale, margin)
    if not torch.is_grad_enabled():
        units, weight = units.detach(), weight.detach()
    values: tuple[Tensor, Tensor] = _Repulsion.apply(units, weight, setting)
    return values


class _Setting(NamedTuple):
    labels: Tensor
    log_weights: Tensor | None
    scale: float
    margin: float

    def exponents(self, cosines: Tensor, block: slice) -> tuple[Tensor, Tensor]:
        """(n, k) of the cosines to a block of k proxies, in their place, −inf at those of a sample's own class; and the
        cosines to those, (n,), 0 where it is in another block.
        """
        column, inside = own_columns(self.labels, block)
        own = torch.where(inside, cosines.gather(1, column), 0)[:, 0]
        found = cosines.add_(self.margin).mul_(self.scale)
        if self.log_weights is not None:
            found += self.log_weights[:, None]
        # Where a sample's own proxy is in another block, what is written is what was there.
        return found.scatter_(1, column, found.gather(1, column).masked_fill_(inside, -torch.inf)), own


class _Gradients(NamedTuple):
    """By the embeddings, added up, and by the proxies, written a block at a time; None where nobody asks."""

    units: Tensor | None
    weight: Tensor | None

    def collect(self, shares: Tensor, units: Tensor, proxies: Tensor, lengths: Tensor, block: slice) -> None:
        """What a block of proxies has: the gradient by its cosines, (n, k)."""
        if self.units is not None:
            self.units.addmm_(shares, proxies)
        if self.weight is not None:
            self.weight[block] = through_unit(shares.T @ units, proxies, lengths)


class _Repulsion(torch.autograd.Function):
    """Takes the gradients along with the value, for proxies that weigh alike; for others it starts again.

    What a reducer such as the mean hands back is one number for all, which a gradient is multiplied with. That by the
    few cosines of samples to their own proxies is added afterwards.
    """

    @staticmethod
    def forward(ctx: Any, units: Tensor, weight: Tensor, setting: _Setting) -> tuple[Tensor, Tensor]:
        values, lengths = weight.new_empty(len(weight)), weight.new_empty(len(weight))
        own = units.new_zeros(len(units))
        known = _Gradients(
            torch.zeros_like(units) if ctx.needs_input_grad[0] else None,
            torch.empty_like(weight) if ctx.needs_input_grad[1] else None,
        )
        for block in blocks(len(units), weight):
            proxies, lengths[block] = unit(weight[block])
            exponents, cosines = setting.exponents(units @ proxies.T, block)
            own += cosines
            values[block] = torch.nn.functional.softplus(exponents.logsumexp(0), threshold=50)
            if any(ctx.needs_input_grad):
                shares = exponents.sub_(values[block]).exp_().mul_(setting.scale)
                known.collect(shares, units, proxies, lengths[block], block)
        ctx.save_for_backward(units, weight, lengths, own)
        ctx.setting, ctx.known = setting, known
        return values, own

    @staticmethod
    def backward(ctx: Any, grad: Tensor, by_own: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        refuse_second_derivative()
        units, weight, lengths, own = ctx.saved_tensors
        known, keeps = ctx.known, graph_is_kept()
        if len(grad) == 1 or (len(grad) and grad.stride() == (0,)):
            multiply = torch.mul if keeps else Tensor.mul_
            found = _Gradients(*(None if by is None else multiply(by, grad[0]) for by in known))
        else:
            found = _Gradients(*(None if by is None else torch.zeros_like(by) for by in known))
            for block in blocks(len(units), weight):
                proxies = _directions(weight[block], lengths[block])
                exponents, _ = ctx.setting.exponents(units @ proxies.T, block)
                values = torch.nn.functional.softplus(exponents.logsumexp(0), threshold=50)
                shares = exponents.sub_(values).exp_().mul_(ctx.setting.scale * grad[block])
                found.collect(shares, units, proxies, lengths[block], block)
        if not keeps:
            # A gradient that nobody else holds is taken as it is; another would be copied.
            ctx.known = None
        _collect_own(ctx.setting.labels, by_own, own, units, weight, lengths, found)
        return *found, None


def _directions(weight: Tensor, lengths: Tensor) -> Tensor:
    return weight * torch.where(lengths > 0, 1 / lengths, 0)[:, None]


def _collect_own(
    labels: Tensor, by_own: Tensor, own: Tensor, units: Tensor, weight: Tensor, lengths: Tensor, found: _Gradients
) -> None:
    """Add the gradients by the cosines of samples to their own proxies."""
    inside = (labels >= 0) & (labels < len(weight))
    if not len(weight):
        return
    at = torch.where(inside, labels, 0)
    by = torch.where(inside, by_own, 0)[:, None]
    length = lengths[at]
    proxies = _directions(weight[at], length)
    if found.units is not None:
        found.units.addcmul_(by, proxies)
    if found.weight is not None:
        inverse = torch.where(length > 0, 1 / length, 0)[:, None]
        sums, _, which = sums_by_label(by * inverse * (units - own[:, None] * proxies), at)
        # Rows of one label write the same.
        found.weight[which] += sums
