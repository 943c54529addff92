"""The mining step of the multi-similarity loss.

Wang, Han, Huang, Dong, Scott (2019): Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.
arXiv:1904.06627.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nearfar.nn.arguments import finite
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine
from nearfar.nn.miners import Miner
from nearfar_pair.pair_rules import WithinReach

__all__ = ["MultiSimilarity"]


class MultiSimilarity(Miner):
    r"""Positives less similar than their anchor's nearest negative, negatives more so than its farthest positive.

    .. math:: s_{ip} < \max_n s_{in} + \epsilon, \qquad s_{in} > \min_p s_{ip} - \epsilon

    Parameters
    ----------
    epsilon : float
        [units of the similarity, -inf..inf] ε; 0.1 as in the paper. On a distance it is one.
    distance : nn.Module, optional
        What s is, a distance being negated; unset, that of the loss, and cosine similarity without one.

    Raises
    ------
    ArgumentError
        The margin is not a finite number.

    Notes
    -----
    An anchor without a negative keeps no positive, and one without a positive no negative. A loss on the same distance
    chooses while it sums, and no list of pairs is made.

    References
    ----------
    Wang et al. (2019), arXiv:1904.06627, equations 9 and 10.
    """

    def __init__(self, epsilon: float = 0.1, *, distance: nn.Module | None = None) -> None:
        super().__init__(distance=distance)
        self.epsilon = finite("epsilon", epsilon)

    def _distance_for(self, loss: nn.Module | None) -> Any:
        alone = self.distance is None and getattr(loss, "distance", None) is None
        return Cosine() if alone else super()._distance_for(loss)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> WithinReach:
        return WithinReach(batch, distance, self.epsilon)

    def extra_repr(self) -> str:
        return f"epsilon={self.epsilon}"
