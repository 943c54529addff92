"""Pairs that are hard beside the opposite side of their anchor.

Wang, Han, Huang, Dong, Scott (2019): Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.
arXiv:1904.06627.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection, distance_matrix

__all__ = ["MultiSimilarityMiner"]


class MultiSimilarityMiner(Miner):
    r"""Negatives nearer than the farthest positive, and positives farther than the nearest negative, give or take ε.

    .. math::
        \{(a, n) : d(a, n) - \max_p d(a, p) < \epsilon\}, \quad
        \{(a, p) : \min_n d(a, n) - d(a, p) < \epsilon\}

    Parameters
    ----------
    epsilon : float
        [units of the distance, 0..inf] The slack ε, added on both sides; 0.1 is the paper's (section 4.1), for cosine
        similarity.
    distance : nn.Module, optional
        What d is, a similarity being negated; unset, that of the loss, and cosine similarity without one.

    Raises
    ------
    ArgumentError
        ``epsilon`` is negative or not finite.

    Notes
    -----
    An anchor without a positive selects no negative, and one without a negative no positive. An anchor may be left with
    pairs of one sort only, as in the paper's equations; the official code then drops the anchor.

    References
    ----------
    Wang et al. (2019), arXiv:1904.06627, equations 7 and 8.
    """

    def __init__(self, epsilon: float = 0.1, *, distance: nn.Module | None = None) -> None:
        super().__init__(distance=distance)
        self.epsilon = non_negative("epsilon", epsilon)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        positive, negative = batch.positive_mask(), batch.negative_mask()
        if not positive.numel():  # amax and amin take no empty rows
            none = positive.new_empty(0, dtype=torch.int64)
            return IndexSelection((none, none, none, none))
        matrix = distance_matrix(distance, batch)
        farthest = matrix.masked_fill(~positive, -float("inf")).amax(1, keepdim=True)
        nearest = matrix.masked_fill(~negative, float("inf")).amin(1, keepdim=True)
        # Not a comparison that is false of NaN: what is not a number must show in the loss.
        negative &= ~(matrix - farthest >= self.epsilon)
        positive &= ~(nearest - matrix >= self.epsilon)
        return IndexSelection((*torch.where(positive), *torch.where(negative)))

    def _distance_for(self, loss: nn.Module | None) -> Any:
        if self.distance is None and getattr(loss, "distance", None) is None:
            return Cosine()
        return super()._distance_for(loss)

    def extra_repr(self) -> str:
        return f"epsilon={self.epsilon}"
