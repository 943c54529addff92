"""The directions of a block of proxies, and the way back, with as few passes over memory as there can be."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.nn.vectors import scaled

__all__ = ["directions", "through_directions"]


def directions(vectors: Tensor, inverses: Tensor) -> Tensor:
    """Vectors (…, d) scaled to length one; 1 over their lengths, or 0, is written to ``inverses`` (…, 1)."""
    units, lengths, have_direction = scaled(vectors, -1)
    torch.reciprocal(lengths, out=inverses)
    if not have_direction:
        inverses.masked_fill_(inverses.isinf(), 0)
    return units


def through_directions(grad: Tensor, units: Tensor, inverses: Tensor, out: Tensor) -> None:
    """Write the gradient by vectors to ``out``, of that by their directions; all are (…, d)."""
    torch.mul(grad, inverses, out=out)
    radial = (out * units).sum(-1, keepdim=True)
    out.addcmul_(units, radial, value=-1)
