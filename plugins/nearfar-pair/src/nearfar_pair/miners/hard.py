"""Hard triplets."""

from __future__ import annotations

from typing import Any

from torch import nn

from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import TripletRule

__all__ = ["Hard"]


class Hard(Miner):
    r"""Triplets whose negative is no farther than the positive.

    .. math:: d(a, n) - d(a, p) \le 0

    Parameters
    ----------
    distance : nn.Module, optional
        What d is, a similarity being negated; unset, that of the loss, and Euclidean without one.

    Notes
    -----
    Early in training these alone can collapse the embedding to a point (Schroff et al., 2015, section 3.2).
    """

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> TripletRule:
        return TripletRule(batch, distance, upper=0.0)
