"""Every positive with the hardest negative."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection, distance_matrix

__all__ = ["HardNegativeAllPositive"]


class HardNegativeAllPositive(Miner):
    r"""For each positive pair the nearest negative of its anchor, wherever the positive is.

    .. math:: (a,\ p,\ \arg\min_{n:\, y_n \ne y_a} d(a, n))

    Parameters
    ----------
    distance : nn.Module, optional
        What d is, a similarity being negated; unset, that of the loss, and Euclidean without one.

    Notes
    -----
    One triplet a positive pair, by anchor and positive; none of an anchor without a negative. Of equally near ones the
    first in the batch is taken.

    References
    ----------
    Schroff et al. (2015), arXiv:1503.03832, section 3.2: all anchor-positive pairs, with the hard negatives.
    """

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        negative = batch.negative_mask()
        anchor, positive = torch.where(batch.positive_mask() & negative.any(1, keepdim=True))
        if not len(anchor):  # argmin takes no empty rows
            return IndexSelection((anchor, anchor, anchor))
        nearest = distance_matrix(distance, batch).masked_fill(~negative, float("inf")).argmin(1)
        return IndexSelection((anchor, positive, nearest[anchor]))
