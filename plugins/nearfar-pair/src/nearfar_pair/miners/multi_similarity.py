"""Pairs that are hard beside the opposite side of their anchor.

Wang, Han, Huang, Dong, Scott (2019): Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.
arXiv:1904.06627.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine
from nearfar.nn.miners import Miner
from nearfar_pair.pair_rules import BesideOpposite

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

    A loss on pairs of the same distance chooses while it sums; any other gets the pairs one by one.

    References
    ----------
    Wang et al. (2019), arXiv:1904.06627, equations 7 and 8.
    """

    def __init__(self, epsilon: float = 0.1, *, distance: nn.Module | None = None) -> None:
        super().__init__(distance=distance)
        self.epsilon = non_negative("epsilon", epsilon)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> BesideOpposite:
        return BesideOpposite(batch, distance, self.epsilon)

    def _distance_for(self, loss: nn.Module | None) -> Any:
        if self.distance is None and getattr(loss, "distance", None) is None:
            return Cosine()
        return super()._distance_for(loss)

    def extra_repr(self) -> str:
        return f"epsilon={self.epsilon}"
