"""Functions that keep their relative precision where the plain formula cancels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["excess_over_log1p"]

#: Where the series below is used: it is then exact to float64.
NEAR = 0.1


def excess_over_log1p(x: Tensor, log1p: Tensor | None = None) -> Tensor:
    """x − ln(1 + x) for x > −1, which is about x² / 2 near 0; ``log1p`` is ln(1 + x) where that is known already."""
    # ln(1 + x) = 2 artanh(r) with r = x / (2 + x), and 2r = x − r x: the series of artanh without its first term.
    r = x / (2 + x)
    y = r * r
    series = y.mul(2 / 13)
    for odd in (11, 9, 7, 5, 3):
        series.add_(2 / odd).mul_(y)
    near = r * (x - series)
    return torch.where(x.abs() < NEAR, near, x - (x.log1p() if log1p is None else log1p))
