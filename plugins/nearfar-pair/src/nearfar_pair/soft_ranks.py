"""Soft ranks: how many of a row are nearer than each of the anchor's positives, counted by a sigmoid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar_pair.sides import Rows

__all__ = ["soft_counts"]


def soft_counts(rows: Rows, temperature: float) -> tuple[Tensor, Tensor]:
    """How many other positives, and how many negatives, are softly nearer than each positive: (r, k) each.

    One that is nearer by δ counts :math:`1 / (1 + e^{-\\delta / \\tau})`. Of places without a positive the counts say
    nothing.
    """
    # Each positive counts itself by a half among its own.
    among: Tensor = _Before.apply(rows.d_ap, rows.d_ap_or_far, temperature) - 0.5
    before: Tensor = _Before.apply(rows.d_ap, rows.d_an, temperature)
    return among, before


class _Before(torch.autograd.Function):
    """Σₙ σ((dₚ − dₙ) / τ) for each p of (r, k) and all n of (r, m), one column of p after another.

    Nothing larger than a row for each anchor is kept; the sigmoids are computed once more in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, d_ap: Tensor, d_an: Tensor, temperature: float) -> Tensor:
        ctx.temperature = temperature
        ctx.save_for_backward(d_ap, d_an)
        found = torch.empty_like(d_ap)
        buffer = torch.empty_like(d_an)
        for k in range(d_ap.shape[1]):
            torch.sub(d_ap[:, k : k + 1], d_an, out=buffer)
            torch.sum(buffer.div_(temperature).sigmoid_(), 1, out=found[:, k])
        return found

    @staticmethod
    def backward(ctx: Any, by_found: Tensor) -> tuple[Tensor, Tensor, None]:
        d_ap, d_an = ctx.saved_tensors
        by_ap, by_an = [], torch.zeros_like(d_an)
        by_found = by_found / ctx.temperature
        for k in range(d_ap.shape[1]):
            # Out of place, so that it can be differentiated once more.
            sigmoid = torch.sigmoid((d_ap[:, k : k + 1] - d_an) / ctx.temperature)
            slope = sigmoid * (1 - sigmoid) * by_found[:, k : k + 1]
            by_ap.append(slope.sum(1))
            by_an = by_an - slope
        return torch.stack(by_ap, 1), by_an, None
