"""Every triplet of a batch."""

from __future__ import annotations

from typing import Any

from torch import nn

from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import TripletRule

__all__ = ["All"]


class All(Miner):
    r"""Every triplet: an anchor, another of its class, and one of another class.

    .. math:: \{(a, p, n) : y_a = y_p \ne y_n,\ a \ne p\}

    Parameters
    ----------
    distance : nn.Module, optional
        Decides nothing here, and is taken so that miners can be exchanged.

    Notes
    -----
    It is what a triplet loss looks at without a miner, under a name. The miner of pytorch-metric-learning
    called "all" keeps the triplets that violate the margin only; a hinge makes no difference between the two
    but in the mean over all terms.
    """

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> TripletRule:
        return TripletRule(batch, distance)
