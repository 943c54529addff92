"""What pushes every proxy and the samples of other classes apart, a block of proxies at a time."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.nn.closed_form import graph_is_kept, refuse_second_derivative
from nearfar.nn.memory import gradient_like
from nearfar.nn.precision import in_full_precision
from nearfar.nn.products import add_product, product
from nearfar_proxy.blocks import LOG2_E, blocks, own_columns
from nearfar_proxy.directions import directions, through_directions
from nearfar_proxy.running import sums_by_label

__all__ = ["repulsion"]

#: The greatest exponent that is not looked for: of e^48 a million times that is far from the end of float32.
MILD = 48.0


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

    def is_mild(self) -> bool:
        """Whether the exponentials and their sums stay in the range of float32, with no greatest taken off first."""
        return self.scale * (1 + self.margin) <= MILD

    def factors(self, units: Tensor) -> Tensor:
        """(n, 1) what the exponentials of each sample still have to be multiplied with."""
        if not self.is_mild():
            return torch.ones_like(units[:, :1])
        constant = self.scale * self.margin
        if self.log_weights is None:
            return torch.full_like(units[:, :1], math.exp(constant))
        return (self.log_weights + constant).exp()[:, None].to(units)

    def push(self, units: Tensor, proxies: Tensor, factors: Tensor, block: slice) -> _Pushed:
        """What a block of k proxies does."""
        column, inside = own_columns(self.labels, block)
        if self.is_mild():
            found = product(units * (self.scale * LOG2_E), proxies.T)
            at = found.gather(1, column)
            own = at / (self.scale * LOG2_E)
            # Where a sample's own proxy is in another block, what is written is what was there.
            found.exp2_().scatter_(1, column, found.gather(1, column).masked_fill_(inside, 0))
            total = found.T @ factors[:, 0]
            values, slopes = total.log1p(), self.scale / (1 + total)
        else:
            found = product(units, proxies.T)
            own = found.gather(1, column)
            found.add_(self.margin).mul_(self.scale)
            if self.log_weights is not None:
                found += self.log_weights[:, None]
            found.scatter_(1, column, found.gather(1, column).masked_fill_(inside, -torch.inf))
            values = torch.nn.functional.softplus(found.logsumexp(0), threshold=50)
            found.sub_(values).exp_()
            slopes = torch.full_like(values, self.scale)
        return _Pushed(values, torch.where(inside, own, 0)[:, 0], found, slopes)


class _Pushed(NamedTuple):
    """Attributes: (k,) the values of a block of proxies; (n,) the cosines of samples to their own, 0 where it is in
    another block; (n, k) and (k,) what, multiplied with each other and the samples' factors, are the gradients of the
    values by the cosines.
    """

    values: Tensor
    own: Tensor
    shares: Tensor
    slopes: Tensor


class _Gradients(NamedTuple):
    """By the embeddings, added up, and by the proxies, written a block at a time; None where nobody asks."""

    units: Tensor | None
    weight: Tensor | None

    def collect(self, pushed: _Pushed, units: Tensor, proxies: Tensor, inverses: Tensor, block: slice) -> None:
        """What a block of proxies has; ``units`` are times the samples' factors."""
        slopes = pushed.slopes[:, None]
        if self.units is not None:
            add_product(self.units, pushed.shares, proxies * slopes)
        if self.weight is not None:
            through_directions(product(pushed.shares.T, units), proxies, inverses * slopes, self.weight[block])


class _Repulsion(torch.autograd.Function):
    """Takes the gradients along with the value, for proxies that weigh alike; for others it starts again.

    What a reducer such as the mean hands back is one number for all, which a gradient is multiplied with. That by the
    few cosines of samples to their own proxies is added afterwards.
    """

    @staticmethod
    def forward(ctx: Any, units: Tensor, weight: Tensor, setting: _Setting) -> tuple[Tensor, Tensor]:
        values, inverses = weight.new_empty(len(weight)), weight.new_empty(len(weight), 1)
        own, factors = units.new_zeros(len(units)), setting.factors(units)
        drawn = units * factors
        known = _Gradients(
            torch.zeros_like(units) if ctx.needs_input_grad[0] else None,
            gradient_like(weight) if ctx.needs_input_grad[1] else None,
        )
        for block in blocks(len(units), weight):
            proxies = directions(weight[block], inverses[block])
            pushed = setting.push(units, proxies, factors, block)
            values[block] = pushed.values
            own += pushed.own
            if any(ctx.needs_input_grad):
                known.collect(pushed, drawn, proxies, inverses[block], block)
        if known.units is not None:
            known.units.mul_(factors)
        ctx.save_for_backward(units, weight, inverses, own)
        ctx.setting, ctx.known = setting, known
        return values, own

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, grad: Tensor, by_own: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        refuse_second_derivative()
        units, weight, inverses, own = ctx.saved_tensors
        known, keeps = ctx.known, graph_is_kept()
        if len(grad) == 1 or (len(grad) and grad.stride() == (0,)):
            multiply = torch.mul if keeps else Tensor.mul_
            found = _Gradients(*(None if by is None else multiply(by, grad[0]) for by in known))
        else:
            found = _Gradients(*(None if by is None else torch.zeros_like(by) for by in known))
            factors = ctx.setting.factors(units)
            drawn = units * factors
            for block in blocks(len(units), weight):
                proxies = weight[block] * inverses[block]
                pushed = ctx.setting.push(units, proxies, factors, block)
                pushed.slopes.mul_(grad[block])
                found.collect(pushed, drawn, proxies, inverses[block], block)
            if found.units is not None:
                found.units.mul_(factors)
        if not keeps:
            # A gradient that nobody else holds is taken as it is; another would be copied.
            ctx.known = None
        _collect_own(ctx.setting.labels, by_own, own, units, weight, inverses, found)
        return *found, None


def _collect_own(
    labels: Tensor, by_own: Tensor, own: Tensor, units: Tensor, weight: Tensor, inverses: Tensor, found: _Gradients
) -> None:
    """Add the gradients by the cosines of samples to their own proxies."""
    if not len(weight):
        return
    inside = (labels >= 0) & (labels < len(weight))
    at = torch.where(inside, labels, 0)
    by = torch.where(inside, by_own, 0)[:, None]
    inverse = inverses[at]
    proxies = weight[at] * inverse
    if found.units is not None:
        found.units.addcmul_(by, proxies)
    if found.weight is not None:
        sums, _, which = sums_by_label(by * inverse * (units - own[:, None] * proxies), at)
        # Rows of one label write the same.
        found.weight[which] += sums
