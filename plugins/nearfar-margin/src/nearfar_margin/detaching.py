"""A value with the gradient of something else."""

from __future__ import annotations

from torch import Tensor

__all__ = ["straight_through"]


def straight_through(value: Tensor, argument: Tensor) -> Tensor:
    """``value``, with the gradient of ``argument``."""
    return value.detach() + (argument - argument.detach())
