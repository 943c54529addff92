"""Arithmetic on rows of vectors that stays sound where they are zero."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["unit"]

#: A vector none of whose components is greater than this has no direction.
TINY = 1e-12


def unit(vectors: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Vectors scaled to length one, and their lengths; a zero vector stays zero and passes no gradient.

    torch's ``normalize`` passes a gradient of 1e12 there: finite, and fatal to the step that follows. Lengths are
    taken of vectors scaled by their largest component, so that none overflows on the way.
    """
    if not vectors.shape[dim]:
        return vectors, vectors.sum(dim)
    largest = vectors.detach().abs().amax(dim, keepdim=True)
    none = largest <= TINY
    largest = largest.masked_fill(none, 1)
    scaled = vectors / largest
    # Ones stand in for a zero vector, so that its second derivative is finite too.
    length = torch.linalg.vector_norm(scaled.masked_fill(none, 1), dim=dim, keepdim=True)
    return (scaled / length).masked_fill(none, 0), (length * largest).masked_fill(none, 0).squeeze(dim)
