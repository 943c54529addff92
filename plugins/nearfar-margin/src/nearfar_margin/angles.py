"""Functions of an angle that is known by its cosine."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["cos_plus"]


def cos_plus(t: Tensor, margin: float) -> Tensor:
    """``cos(θ + m)`` of ``t = cos θ``, without an arc cosine: ``t cos m − sin θ sin m``.

    ``sin θ = √((1 − t)(1 + t))`` keeps its digits near t = ±1, where ``1 − t²`` loses half of them. Its
    derivative is infinite there; at ±1 itself (and beyond, by rounding) it is taken as 0, which is also the
    subgradient of smallest norm as a function of the embedding. In float32 that is every angle below 3·10⁻⁴.
    """
    square = (1 - t) * (1 + t)
    flat = square <= 0
    sine = square.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)
    return t * math.cos(margin) - sine * math.sin(margin)
