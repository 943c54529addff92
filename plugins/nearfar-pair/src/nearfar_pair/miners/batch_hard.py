"""The hardest triplet of each anchor.

Hermans, Beyer, Leibe (2017): In Defense of the Triplet Loss for Person Re-Identification. arXiv:1703.07737.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection, distance_matrix

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

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        positive, negative = batch.positive_mask(), batch.negative_mask()
        anchor = torch.where(positive.any(1) & negative.any(1))[0]
        if not len(anchor):  # argmax takes no empty rows
            return IndexSelection((anchor, anchor, anchor))
        matrix = distance_matrix(distance, batch)
        farthest = matrix.masked_fill(~positive, -float("inf")).argmax(1)
        nearest = matrix.masked_fill(~negative, float("inf")).argmin(1)
        return IndexSelection((anchor, farthest[anchor], nearest[anchor]))
