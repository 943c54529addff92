"""The hardest triplet of each anchor.

Hermans, Beyer, Leibe (2017): In Defense of the Triplet Loss for Person Re-Identification. arXiv:1703.07737.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar_pair.hardest_triplets import HardestTriplets

__all__ = ["BatchHard"]


class BatchHard(Miner):
    r"""For each anchor its farthest positive and its nearest negative.

    .. math:: (a,\ \arg\max_{p:\, y_p = y_a,\ p \ne a} d(a, p),\ \arg\min_{n:\, y_n \ne y_a} d(a, n))

    Parameters
    ----------
    distance : nn.Module, optional
        What d is, a similarity being negated; unset, that of the loss, and Euclidean without one.

    Notes
    -----
    At most one triplet an anchor, in the order of the anchors; an anchor without a positive or without a
    negative has none. Of equally far ones the first in the batch is taken.

    References
    ----------
    Hermans et al. (2017), arXiv:1703.07737, equation 5.
    """

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> HardestTriplets:
        return HardestTriplets(batch, distance)
