"""Pairs on the wrong side of a distance."""

from __future__ import annotations

from typing import Any

from torch import nn

from nearfar.nn.arguments import finite
from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar_pair.pair_rules import Margins

__all__ = ["PairMargin"]


class PairMargin(Miner):
    r"""Positives farther than one distance, negatives nearer than another.

    .. math:: \{(a, p) : d(a, p) > m_+\}, \quad \{(a, n) : d(a, n) < m_-\}

    For a similarity the positives less similar than :math:`m_+`, the negatives more similar than :math:`m_-`.

    Parameters
    ----------
    pos_margin : float
        [units of the distance] Positives are selected beyond it; the default 0.2 is pytorch-metric-learning's, for
        Euclidean distance of normalised embeddings.
    neg_margin : float
        [units of the distance] Negatives are selected within it; the default 0.8 is pytorch-metric-learning's.
    distance : nn.Module, optional
        What d is; unset, that of the loss, and Euclidean without one.

    Raises
    ------
    ArgumentError
        A margin is not finite.

    Notes
    -----
    A pair at the margin itself is not selected: a contrastive loss with the same margins costs nothing there. For a
    similarity both margins have to be given: the defaults are distances.

    A loss on pairs of the same distance chooses while it sums; any other gets the pairs one by one.
    """

    def __init__(self, pos_margin: float = 0.2, neg_margin: float = 0.8, *, distance: nn.Module | None = None) -> None:
        super().__init__(distance=distance)
        self.pos_margin = finite("pos_margin", pos_margin)
        self.neg_margin = finite("neg_margin", neg_margin)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> Margins:
        return Margins(batch, distance, self.pos_margin, self.neg_margin)

    def extra_repr(self) -> str:
        return f"pos_margin={self.pos_margin}, neg_margin={self.neg_margin}"
