"""Which tier computes box losses: kernels compiled by numba where that is installed and fits, torch everywhere else.

On a GPU it is kernels of Triton's, see :mod:`nearfar_iou.fused`, which are written from the same formulas.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from nearfar.nn.compiled import is_plain, kernels_of

__all__ = ["Formula", "fits", "kernels"]


class Formula(NamedTuple):
    """How the compiled tier computes a loss.

    Attributes
    ----------
    name
        Of a formula in :mod:`nearfar_iou.compiled.formulas`.
    numbers
        Its parameters.
    around
        What another loss makes of it, ``"alpha"``, ``"focal"`` or ``"inner"``; ``""`` for the loss itself.
    number
        The parameter of that.
    """

    name: str
    numbers: tuple[float, float, float] = (0.0, 0.0, 0.0)
    around: str = ""
    number: float = 0.0


def kernels() -> Any:
    """The module of kernels, or None where numba cannot be used."""
    return kernels_of("nearfar_iou.compiled.kernels")


def fits(*tensors: Tensor) -> bool:
    """Whether kernels can read these: plain numbers in the memory of the CPU, and nobody watches what is done."""
    for each in tensors:  # a generator would cost more than what it asks
        if not each.is_cpu:
            return False
    return is_plain(*tensors) and kernels() is not None
