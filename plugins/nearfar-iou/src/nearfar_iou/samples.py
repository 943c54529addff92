"""Inputs for checks of losses whose inputs nothing else has."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["distances"]


def distances(n: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (n, 4, 6) float64 of six bins, and distances (n, 4) from 0 to 5."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 4, 6, generator=generator, dtype=torch.float64)
    return logits, 5 * torch.rand(n, 4, generator=generator, dtype=torch.float64)
