"""Functions of an angle that is known by its cosine.

The angle has an infinite derivative at 0 and π. There, and beyond them by rounding, every function here takes it as 0,
which is also the subgradient of smallest norm as a function of the embedding. In float32 that is every angle below
3·10⁻⁴.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["angle", "cos_plus", "cos_times", "sine", "widened"]


def sine(t: Tensor) -> Tensor:
    """``sin θ`` of ``t = cos θ``: ``√((1 − t)(1 + t))`` keeps its digits near t = ±1, where ``1 − t²`` loses half."""
    square = (1 - t) * (1 + t)
    flat = square <= 0
    return square.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)


def angle(t: Tensor) -> Tensor:
    """``θ`` in [0, π] of ``t = cos θ``."""
    return torch.atan2(sine(t), t)


def cos_plus(t: Tensor, margin: float | Tensor) -> Tensor:
    """``cos(θ + m)`` of ``t = cos θ``, without an arc cosine: ``t cos m − sin θ sin m``."""
    if isinstance(margin, Tensor):
        return t * margin.cos() - sine(t) * margin.sin()
    return t * math.cos(margin) - sine(t) * math.sin(margin)


def cos_times(t: Tensor, times: int) -> Tensor:
    """``cos(mθ)`` of ``t = cos θ`` for a whole m: the Chebyshev polynomial, whose derivative is finite everywhere."""
    before, now = torch.ones_like(t), t
    for _ in range(times - 1):
        before, now = now, 2 * t * now - before
    return now


def widened(t: Tensor, margin: float | Tensor, *, easy: bool = False) -> Tensor:
    """ArcFace's ψ: ``cos(θ + m)``, and a line that goes on falling where that would rise again, beyond θ + m = π.

    The line is ``t − m sin m`` as in the authors' code, after a jump down. ``easy``: the margin is for angles below
    π/2 alone, and beyond it ψ is t.
    """
    psi = cos_plus(t, margin)
    if easy:
        return torch.where(t > 0, psi, t)
    if isinstance(margin, Tensor):
        return torch.where(t > -margin.cos(), psi, t - margin * margin.sin())
    return torch.where(t > -math.cos(margin), psi, t - margin * math.sin(margin))
