"""Formulas of rows that know their own slopes, so that no graph is recorded for their sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nearfar_pair.arithmetic import exponential_, log_sum_exp

__all__ = ["Sloped", "SlopedFormula", "soft_extreme"]


class Sloped(NamedTuple):
    """The outputs of a formula, and how gradients by their sums go back.

    Attributes
    ----------
    outputs
        As of a :data:`~nearfar_pair.row_pass.Formula`, and like them differentiable where gradients are recorded.
    pull
        Called with the gradient by the sum of each output of which one may be asked for, a number, a 0-d tensor or
        None, it gives the gradients (r, k) and (r, m) by the distances of positives and references, which are 0 where
        these are far, and that by each parameter; None for zeros. It is called where no gradients are recorded; with
        :attr:`Rows.scratch <nearfar_pair.sides.Rows.scratch>` once for each sum, else as often as one likes.
    """

    outputs: tuple[Tensor, ...]
    pull: Callable[..., tuple[Tensor | None, ...]]


#: Of :class:`~nearfar_pair.sides.Rows` and parameters.
SlopedFormula = Callable[..., Sloped]


def soft_extreme(
    x: Tensor, scale: float = 1.0, scratch: Tensor | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """:func:`~nearfar_pair.arithmetic.log_sum_exp`, and how a gradient (r,) by it goes back to ``x``.

    Of a row in which all are equally far the weights are those of any other: what goes back has to be 0 there.
    """
    if torch.is_grad_enabled():
        return log_sum_exp(x, scale, scratch), _is_not_asked
    first = x.amax(1, keepdim=True) if scale > 0 else x.amin(1, keepdim=True)
    weights = exponential_(torch.sub(x, first, out=scratch), scale)
    total = weights.sum(1, keepdim=True)

    def pull(by: Tensor) -> Tensor:
        return torch.mul(weights, by[:, None] * scale / total, out=scratch)

    return torch.add(total.log(), first, alpha=scale)[:, 0], pull


def _is_not_asked(by: Tensor) -> Tensor:
    raise AssertionError("slopes are asked for where no gradients are recorded")
