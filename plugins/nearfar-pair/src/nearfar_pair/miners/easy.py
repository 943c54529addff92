"""Easy triplets."""

from __future__ import annotations

from typing import Any

from torch import nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner, margin_of
from nearfar.nn.selection import TripletRule

__all__ = ["Easy"]


class Easy(Miner):
    r"""Triplets whose negative is farther than the positive by more than the margin.

    .. math:: d(a, n) - d(a, p) > m

    With ``hard`` and ``semihard`` it divides the triplets of a batch in three.

    Parameters
    ----------
    margin : float, optional
        [units of the distance, 0..inf] The margin m; unset, that of the loss it selects for.
    distance : nn.Module, optional
        What d is, a similarity being negated; unset, that of the loss, and Euclidean without one.

    Raises
    ------
    ArgumentError
        The margin is negative or not finite, or neither the miner nor the loss has one.

    Notes
    -----
    A hinge with the same margin costs nothing on them; it is for losses that never vanish, and for looking at a batch.

    References
    ----------
    Schroff et al. (2015), arXiv:1503.03832, section 3.1, where they are called easily satisfied.
    """

    def __init__(self, margin: float | None = None, *, distance: nn.Module | None = None) -> None:
        super().__init__(distance=distance)
        self.margin = None if margin is None else non_negative("margin", margin)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> TripletRule:
        return TripletRule(batch, distance, margin_of(self, self.margin, loss))

    def extra_repr(self) -> str:
        return f"margin={self.margin}"
