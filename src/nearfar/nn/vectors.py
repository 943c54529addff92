"""Arithmetic on rows of vectors that stays sound where they are zero."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["unit"]

#: Below this a vector has no direction; torch.nn.functional.normalize has the same bound.
TINY = 1e-12


def unit(vectors: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Vectors scaled to length one, and their lengths; a zero vector stays zero and passes no gradient.

    torch's ``normalize`` passes a gradient of 1e12 there: finite, and fatal to the step that follows.
    """
    norm = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    none = norm <= TINY
    inverse = norm.masked_fill(none, 1).reciprocal().masked_fill(none, 0)
    return vectors * inverse, norm.squeeze(dim)
