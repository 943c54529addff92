"""Arithmetic on rows of vectors that stays sound where they are zero, or so large that their squares overflow."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.precision import in_full_precision

__all__ = ["scaled", "through_unit", "unit"]

#: A vector not longer than this has no direction; torch.nn.functional.normalize has the same bound.
TINY = 1e-12


def unit(vectors: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Vectors scaled to length one, and their lengths; a zero vector stays zero and passes no gradient.

    torch's ``normalize`` passes a gradient of 1e12 there: finite, and fatal to the step that follows.
    """
    if not torch.is_grad_enabled():
        units, lengths, _ = scaled(vectors, dim)
        return units, lengths.squeeze(dim)
    units, lengths = _Unit.apply(vectors, dim)
    return units, lengths


def scaled(vectors: Tensor, dim: int = 1) -> tuple[Tensor, Tensor, bool]:
    """What :func:`unit` gives, lengths with the dimension kept, without a gradient, and whether it is known that all
    have a direction."""
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    # On the CPU asking whether there are any is cheaper than a pass over all; on a GPU it would stall the stream.
    on_cpu = vectors.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and length.numel() and _have_direction(length):
        return vectors / length, length, True
    none = length <= TINY
    units = vectors / length.masked_fill(none, 1)
    if not on_cpu or bool(none.any()):
        units.masked_fill_(none, 0)
    too_long = length.isinf()
    if vectors.shape[dim] and (not on_cpu or bool(too_long.any())):
        shorter = vectors / torch.linalg.vector_norm(vectors, torch.inf, dim=dim, keepdim=True)
        shorter /= torch.linalg.vector_norm(shorter, dim=dim, keepdim=True)
        units = torch.where(too_long, shorter, units)
    return units, length.masked_fill(none, 0), False


def through_unit(grad: Tensor, units: Tensor, lengths: Tensor, dim: int = 1, *, have_direction: bool = False) -> Tensor:
    """The gradient by vectors, of that by their ``units``; both as :func:`scaled` gave them."""
    radial = torch.linalg.vecdot(grad, units, dim=dim).unsqueeze(dim)
    across = torch.addcmul(grad, units, radial, value=-1)
    if have_direction:
        return across / lengths
    none = lengths == 0
    return across * lengths.masked_fill(none, 1).reciprocal().masked_fill(none, 0)


def _have_direction(lengths: Tensor) -> bool:
    """Whether all are lengths of vectors that can be scaled to length one just so."""
    least, greatest = torch.aminmax(lengths)
    return least.item() > TINY and greatest.item() < math.inf


class _Unit(torch.autograd.Function):
    """Written out because class weights are large: autograd would keep, and go back through, several copies of them.

    The backward pass is a function of the results alone and can be differentiated again.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        units, lengths, ctx.have_direction = scaled(vectors, dim)
        ctx.dim = dim
        ctx.set_materialize_grads(False)
        lengths = lengths.squeeze(dim)
        ctx.save_for_backward(units, lengths)  # the results themselves, which have a history
        return units, lengths

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, to_units: Tensor | None, to_lengths: Tensor | None) -> tuple[Tensor | None, None]:
        units, lengths = ctx.saved_tensors
        grad = None
        if to_units is not None:
            kept = lengths.unsqueeze(ctx.dim)
            grad = through_unit(to_units, units, kept, ctx.dim, have_direction=ctx.have_direction)
        if to_lengths is not None:
            along = to_lengths.unsqueeze(ctx.dim) * units
            grad = along if grad is None else grad + along
        return grad, None
