"""Arithmetic on rows of distances that torch has too, but slower or less exactly."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["log_sum_exp", "softplus"]


def log_sum_exp(x: Tensor, scale: float = 1.0) -> Tensor:
    """log Σⱼ exp(scale · xᵢⱼ) of each row of (r, m) finite numbers: (r,).

    torch's own takes several passes more, and back through it a selection that costs more than the exponential.
    """
    found: Tensor = _LogSumExp.apply(x, scale)
    return found


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        first = x.amax(1) if scale > 0 else x.amin(1)
        # The difference first: that of two rounded products may be above zero, and far above where they are large.
        weights = (x - first[:, None]).mul_(scale).exp_()
        total = weights.sum(1)
        ctx.scale = scale
        found = scale * first + total.log()
        ctx.save_for_backward(x, found, weights, total)
        return found

    @staticmethod
    def backward(ctx: Any, by_found: Tensor) -> tuple[Tensor, None]:
        x, found, weights, total = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative was asked for, which the weights would hide
            weights = (ctx.scale * x - found[:, None]).exp()
            total = torch.ones_like(total)
        return weights * (ctx.scale * by_found / total)[:, None], None


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); torch's own is by default the identity from 20 on, 2e-9 off."""
    return F.softplus(x, threshold=40.0)
