"""Formulas of rows that know their own slopes, so that no graph is recorded for their sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar_pair.arithmetic import LOG2_E, exponential_, log_sum_exp
from nearfar_pair.sides import Rows

__all__ = ["Found", "Pull", "Sloped", "SlopedFormula", "is_not_asked", "log_odds", "nearest", "soft_extreme"]


class Sloped(NamedTuple):
    """The outputs of a formula, and how gradients by their sums go back.

    Attributes
    ----------
    outputs
        The first outputs of a :data:`~nearfar_pair.row_plan.Formula`, of which the sum may be asked for, and like them
        differentiable where gradients are recorded.
    others
        Each makes another output, which nobody differentiates.
    pull
        Called with the gradient by the sum of each of the first, a number, a 0-d tensor or None, it gives the gradients
        (r, k) and (r, m) by the distances of positives and references, which are 0 where these are far, and that by
        each parameter; None for zeros. It is called where no gradients are recorded; with :attr:`Rows.scratch
        <nearfar_pair.sides.Rows.scratch>` after all else and once for each sum, without as often as one likes.
    """

    outputs: tuple[Tensor, ...]
    others: tuple[Callable[[], Tensor], ...]
    pull: Callable[..., tuple[Tensor | None, ...]]

    def all(self) -> tuple[Tensor, ...]:
        """All outputs."""
        return *self.outputs, *(make() for make in self.others)


class Found(Sequence[Tensor]):
    """All outputs of what was found, each made when it is first asked for."""

    def __init__(self, sloped: Sloped) -> None:
        self._makes = sloped.others
        self._made: list[Tensor | None] = [*sloped.outputs, *(None for _ in sloped.others)]

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, i: Any) -> Any:
        found = self._made[i]
        if found is None:
            found = self._made[i] = self._makes[i - len(self._made)]()
        return found


#: Of a gradient (r,) by a number of each row that by the row.
Pull = Callable[[Tensor], Tensor]
#: Of :class:`~nearfar_pair.sides.Rows` and parameters.
SlopedFormula = Callable[..., Sloped]


def soft_extreme(x: Tensor, scale: float = 1.0, scratch: Tensor | None = None) -> tuple[Tensor, Pull]:
    """:func:`~nearfar_pair.arithmetic.log_sum_exp`, and how a gradient (r,) by it goes back to ``x``.

    Of a row in which all are equally far the weights are those of any other: what goes back has to be 0 there.
    """
    if torch.is_grad_enabled():
        return log_sum_exp(x, scale, scratch), is_not_asked
    if scratch is None:
        y = x if scale == 1 else x * scale
        shares = torch.log_softmax(y, 1)
        # The largest share is what the largest number has lost, exactly.
        return y.amax(1) - shares.amax(1), lambda by: (shares * LOG2_E).exp2_().mul_((by * scale)[:, None])
    first = x.amax(1, keepdim=True) if scale > 0 else x.amin(1, keepdim=True)
    weights = exponential_(torch.sub(x, first, out=scratch), scale)
    total = weights.sum(1, keepdim=True)
    found = torch.add(total.log(), first, alpha=scale)[:, 0]
    return found, lambda by: weights.mul_(by[:, None] * scale / total)


def nearest(d: Tensor) -> tuple[Tensor, Pull]:
    """(r,) minus the least of each row of (r, m), and how a gradient by it goes back: of equals to all alike."""
    least = d.amin(1, keepdim=True)

    def pull(by: Tensor) -> Tensor:
        hits = (d == least).to(d.dtype)
        return hits.mul_((-by / hits.sum(1)).unsqueeze(1))

    return -least.squeeze(1), pull


def log_odds(
    rows: Rows, d_ap: Tensor, d_an: Tensor, scale: float
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """(r,) how much more the negatives weigh than the positives, each exp(scale · d), and how a gradient goes back.

    The distances are those of the rows, or what was made of them, and of positives FAR where there is none.
    """
    p, by_ap = soft_extreme(d_ap, scale)
    n, by_an = soft_extreme(d_an, scale, rows.scratch)
    return n - p, lambda by: (by_ap(-by), by_an(by))


def is_not_asked(by: Tensor) -> Any:
    """How a gradient goes back of what torch differentiates itself."""
    raise AssertionError("slopes are asked for where no gradients are recorded")
