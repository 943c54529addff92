"""Arithmetic on rows of distances that torch has too, but slower or less exactly."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.nn.precision import in_full_precision

__all__ = ["exponential_", "first_least", "log_add_exp", "log_sum_exp", "softplus"]

LOG2_E = 1 / math.log(2)
#: How many numbers of a row are compared at once.
GROUP = 32


def log_sum_exp(x: Tensor, scale: float = 1.0, scratch: Tensor | None = None) -> Tensor:
    """log Σⱼ exp(scale · xᵢⱼ) of each row of (r, m) finite numbers: (r,).

    torch's own takes several passes more, and back through it a selection that costs more than the exponential. With
    ``scratch``, as of :class:`~nearfar_pair.sides.Rows`, the exponentials are kept there and the gradient made of them.
    """
    found: Tensor = _LogSumExp.apply(x, scale, scratch)
    return found


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, scratch: Tensor | None) -> Tensor:
        first = x.amax(1) if scale > 0 else x.amin(1)
        # The difference first: that of two rounded products may be above zero, and far above where they are large.
        weights = exponential_(torch.sub(x, first[:, None], out=scratch), scale)
        total = weights.sum(1)
        ctx.scale = scale
        found = scale * first + total.log()
        ctx.set_materialize_grads(False)
        if scratch is None:
            ctx.weights = None
            ctx.save_for_backward(x, found, weights, total)
        else:  # not as a saved tensor, whose memory nobody may write to
            ctx.weights = weights
            ctx.save_for_backward(total)
        return found

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by_found: Tensor | None) -> tuple[Tensor | None, None, None]:
        if by_found is None:
            return None, None, None
        if ctx.weights is not None:
            (total,) = ctx.saved_tensors
            return ctx.weights.mul_((ctx.scale * by_found / total)[:, None]), None, None
        x, found, weights, total = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative was asked for, which the weights would hide
            weights = (ctx.scale * x - found[:, None]).exp()
            total = torch.ones_like(total)
        return weights * (ctx.scale * by_found / total)[:, None], None, None


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); torch's own is by default the identity from 20 on, 2e-9 off."""
    return F.softplus(x, threshold=40.0)


def log_add_exp(x: Tensor, y: Tensor) -> Tensor:
    """log(eˣ + eʸ), of numbers far apart too: there torch's own has a second derivative that is no number."""
    if not torch.is_grad_enabled():
        return torch.logaddexp(x, y)
    larger = torch.maximum(x, y).detach()
    return larger + ((x - larger).exp() + (y - larger).exp()).log()


def exponential_(x: Tensor, scale: float) -> Tensor:
    """exp(scale · x) in place.

    As a power of two: torch's exp takes four times as long, and sixty times where the result is nearly 0 or too small.
    """
    return x.mul_(scale * LOG2_E).exp2_()


def first_least(x: Tensor) -> Tensor:
    """Where the least of each row of (r, m) is, m at least 1, the first of equals: (r, 1); what is no number is least.

    torch's own looks at one number after another; the least of each group comes twenty times as fast.
    """
    m = x.shape[1]
    if m <= 2 * GROUP:
        return x.argmin(1, keepdim=True)
    least = x[:, : m // GROUP * GROUP].reshape(len(x), -1, GROUP).amin(2)
    if m % GROUP:
        least = torch.cat([least, x[:, m - GROUP :].amin(1, keepdim=True)], 1)
    # The last group ends where the row does: what it has in common with the one before is found there.
    start = (least.argmin(1, keepdim=True) * GROUP).clamp_max_(m - GROUP)
    place: Tensor = start + x.gather(1, start + torch.arange(GROUP, device=x.device)).argmin(1, keepdim=True)
    return place
