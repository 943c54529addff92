"""Soft ranks: how many of a row are nearer than each of the anchor's positives, counted by a sigmoid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.precision import in_full_precision
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import is_not_asked

__all__ = ["of_positives", "soft_among", "soft_before"]

#: Of a gradient (r, k) by counts those by the distances of the positives and of the references.
Back = Callable[[Tensor], tuple[Tensor, Tensor]]
#: How many differences are made at a time.
CPU_ELEMENTS, GPU_ELEMENTS = 2**18, 2**22


def soft_before(rows: Rows, temperature: float) -> tuple[Tensor, Back]:
    """(r, k) how many negatives are softly nearer than each positive, and how a gradient by these goes back.

    One that is nearer by δ counts :math:`1 / (1 + e^{-\\delta / \\tau})`. In a place without a positive there are none.
    """
    return _counts(rows.d_ap, rows.d_an, temperature)


def soft_among(rows: Rows, temperature: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """(r, k) how many other positives are; of a place without a positive it says nothing, and has to get no gradient.

    The gradient goes back to the distances of the positives alone.
    """
    found, back = _counts(rows.d_ap, rows.d_ap_or_far, temperature)

    def both(by: Tensor) -> Tensor:
        by_ap, by_other = back(by)
        return by_ap + by_other

    # Each positive counts itself by a half among its own.
    return found - 0.5, both


def of_positives(rows: Rows) -> Tensor:
    """(r, k) what each positive weighs in the mean over those of its anchor; 0 where there is none."""
    return rows.valid.to(rows.d_ap.dtype) / rows.num_positives.clamp_min(1).unsqueeze(1)


def _counts(d_ap: Tensor, d: Tensor, temperature: float) -> tuple[Tensor, Back]:
    """Σₙ σ((dₚ − dₙ) / τ) for each p of (r, k) and all n of (r, m)."""
    if torch.is_grad_enabled():
        found: Tensor = _Counts.apply(d_ap, d, temperature)
        return found, is_not_asked
    groups = list(_groups(d_ap, d))
    if len(groups) > 1:
        return _sums(d_ap, d, temperature), lambda by: _slopes(d_ap, d, temperature, by)
    ahead = _ahead(d_ap, d, groups[0], temperature)
    return ahead.sum(2), lambda by: _pulled(ahead, by / temperature)


class _Counts(torch.autograd.Function):
    """Nothing larger than a few rows for each anchor is kept; the sigmoids are computed once more on the way back."""

    @staticmethod
    def forward(ctx: Any, d_ap: Tensor, d: Tensor, temperature: float) -> Tensor:
        ctx.temperature = temperature
        ctx.save_for_backward(d_ap, d)
        return _sums(d_ap, d, temperature)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, Tensor, None]:
        d_ap, d = ctx.saved_tensors
        # In steps that can be differentiated once more.
        return *_slopes(d_ap, d, ctx.temperature, by), None


def _groups(d_ap: Tensor, d: Tensor) -> Iterator[slice]:
    """A few positives after another; in a small batch all at once."""
    elements = CPU_ELEMENTS if d.device.type == "cpu" else GPU_ELEMENTS
    step = max(1, elements // max(1, d.numel()))
    return (slice(start, start + step) for start in range(0, d_ap.shape[1], step))


def _ahead(d_ap: Tensor, d: Tensor, some: slice, temperature: float) -> Tensor:
    """(r, g, m) how far each reference counts as nearer than some of the positives."""
    return (d_ap[:, some].unsqueeze(2) - d.unsqueeze(1)).div_(temperature).sigmoid_()


def _sums(d_ap: Tensor, d: Tensor, temperature: float) -> Tensor:
    return torch.cat([_ahead(d_ap, d, some, temperature).sum(2) for some in _groups(d_ap, d)], 1)


def _slopes(d_ap: Tensor, d: Tensor, temperature: float, by: Tensor) -> tuple[Tensor, Tensor]:
    by = by / temperature
    parts = [_pulled(_ahead(d_ap, d, some, temperature), by[:, some]) for some in _groups(d_ap, d)]
    by_ap, by_d = zip(*parts, strict=True)
    return torch.cat(by_ap, 1), sum(by_d[1:], by_d[0])


def _pulled(ahead: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    """(r, g) and (r, m) of a gradient (r, g) those by the distances of the positives and of the references."""
    slope = torch.addcmul(ahead, ahead, ahead, value=-1).mul_(by.unsqueeze(2))
    return slope.sum(2), slope.sum(1).neg_()
