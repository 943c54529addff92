"""Intra-pair variance loss.

Yu, Tao (2019): Deep Metric Learning with Tuplet Margin Loss. ICCV.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.excess_losses import ExcessLoss, Line
from nearfar_pair.links import SQUARED_HINGE
from nearfar_pair.pair_distances import pair_distances
from nearfar_pair.row_pass import RowPass, rule_of
from nearfar_pair.sides import Rows

__all__ = ["IntraPairVariance"]

#: Above any cosine: what is no negative counts as this, and is taken out of the sum again.
NONE = 2.0


class IntraPairVariance(ExcessLoss):
    r"""Positive pairs no less similar than positive pairs are on average, negative ones no more than negative ones.

    .. math::
        L_+(a, p) = [(1 - \epsilon_+) \mu_+ - \cos \theta_{ap}]_+^2, \qquad
        L_-(a, n) = [\cos \theta_{an} - (1 + \epsilon_-) \mu_-]_+^2

    with μ the mean cosine of the positive or the negative pairs of the batch.

    Parameters
    ----------
    pos_epsilon : float
        [0..inf] ε₊; 0.01 as in the paper.
    neg_epsilon : float
        [0..inf] ε₋; 0.01 as in the paper.
    distance : nn.Module, optional
        Cosine similarity, by default and on purpose.
    reducer : nn.Module, optional
        Reduces the sub-losses ``positive`` and ``negative`` apart, and their values are added; by default each is
        averaged.

    Raises
    ------
    ArgumentError
        An ε is negative or not finite.

    Notes
    -----
    Terms are ``pos_pair`` and ``neg_pair``, one for each ordered pair. The means are differentiated too. It narrows
    distributions and does not move them apart, so it is added to another loss: ``tuplet_margin + 0.5 *
    intra_pair_variance``. A pair that was selected twice counts twice.

    References
    ----------
    Yu, Tao (2019), ICCV, equations 8 and 9; constants in section 5.1.
    """

    def __init__(
        self,
        pos_epsilon: float = 0.01,
        neg_epsilon: float = 0.01,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.pos_epsilon = non_negative("pos_epsilon", pos_epsilon)
        self.neg_epsilon = non_negative("neg_epsilon", neg_epsilon)

    link = SQUARED_HINGE

    def default_distance(self) -> Distance:
        return Cosine()

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        """The mean distances −μ of the positive and of the negative pairs; 0 of none."""
        if batch.selection is not None and rule_of(batch) is None:
            a1, p, a2, n = batch.selection.pairs()
            of = self.distance, batch.embeddings, None if batch.is_self else batch.reference
            return tuple(pair_distances(*of, a, b).sum() / max(1, len(a)) for a, b in ((a1, p), (a2, n)))
        rows = RowPass(batch, self.distance, _sums, sums=2)
        *sums, _, _, positives, negatives = rows.totals
        counts = (positives.sum().clamp_min(1), negatives.sum().clamp_min(1))
        return tuple(total / count for total, count in zip(sums, counts, strict=True))

    def lines(self, *of_anchor: Tensor) -> tuple[Line, Line]:
        near, far = of_anchor
        return Line(1, (self.pos_epsilon - 1) * near), Line(-1, (1 + self.neg_epsilon) * far)

    def by_learned(self, positive: tuple[Any, Any], negative: tuple[Any, Any]) -> tuple[Any, Any]:
        return (self.pos_epsilon - 1) * positive[1], (1 + self.neg_epsilon) * negative[1]

    def extra_repr(self) -> str:
        return f"pos_epsilon={self.pos_epsilon}, neg_epsilon={self.neg_epsilon}"


def _sums(rows: Rows) -> tuple[Tensor, ...]:
    """Of each anchor the sum of the distances of its positives, of its negatives, and how many these are."""
    if rows.times is not None:
        sums = ((d * n).sum(1) for d, n in zip((rows.d_ap, rows.d_an), rows.times, strict=True))
        return *sums, *(n.sum(1).long() for n in rows.times)
    none = rows.d_an.shape[1] - rows.num_negatives
    negative = rows.d_an.clamp_max(NONE).sum(1) - NONE * none
    return torch.where(rows.valid, rows.d_ap, 0).sum(1), negative, rows.num_positives, rows.num_negatives
