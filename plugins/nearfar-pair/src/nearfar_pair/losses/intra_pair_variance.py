"""Intra-pair variance loss.

Yu, Tao (2019): Deep Metric Learning with Tuplet Margin Loss. ICCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.chosen import rule_of
from nearfar_pair.compiled.pairs import PairLoop
from nearfar_pair.excess_losses import ExcessLoss, Line
from nearfar_pair.links import SQUARED_HINGE
from nearfar_pair.pair_distances import pair_distances
from nearfar_pair.row_losses import counts_of
from nearfar_pair.row_pass import RowPass, is_at_once
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped

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

    link = SQUARED_HINGE

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

    def default_distance(self) -> Distance:
        return Cosine()

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        """The mean distances −μ of the positive and of the negative pairs, 0 of none; nothing where rows have all."""
        if batch.selection is not None and rule_of(batch) is None:
            a1, p, a2, n = batch.selection.pairs()
            of = self.distance, batch.embeddings, None if batch.is_self else batch.reference
            return tuple(pair_distances(*of, a, b).sum() / max(1, len(a)) for a, b in ((a1, p), (a2, n)))
        if is_at_once(batch, self.distance):
            return ()
        rows = RowPass(batch, self.distance, _sums, sloped=_sloped, sums=2)
        sums = rows.totals[:2]
        return tuple(total / rows.found[2 + side].sum().clamp_min(1) for side, total in enumerate(sums))

    def loop(self, learned: tuple[Tensor, ...]) -> PairLoop | None:
        return super().loop(learned) if learned else None

    def of_anchors(self, rows: Rows, learned: Sequence[Tensor]) -> Sequence[Tensor]:
        return learned or _means(rows, _weights(rows))[0]

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        if learned:
            return super().sloped(rows, *learned)
        weights = _weights(rows)
        means, counts = _means(rows, weights)
        found = super().sloped(rows, *means)

        def pull(*by: Any) -> tuple[Tensor | None, ...]:
            *by_d, near, far = found.pull(*by)
            for g, by_mean, weight, count in zip(by_d, (near, far), weights, counts, strict=True):
                if g is not None and by_mean is not None:  # both, or neither
                    g.addcmul_(weight, by_mean / count)
            return tuple(by_d)

        return Sloped(found.outputs, found.others, pull)

    def lines(self, *of_anchor: Tensor) -> tuple[Line, Line]:
        near, far = of_anchor
        return Line(1, (self.pos_epsilon - 1) * near), Line(-1, (1 + self.neg_epsilon) * far)

    def by_learned(self, positive: tuple[Any, Any], negative: tuple[Any, Any]) -> tuple[Any, Any]:
        return (self.pos_epsilon - 1) * positive[1], (1 + self.neg_epsilon) * negative[1]

    def extra_repr(self) -> str:
        return f"pos_epsilon={self.pos_epsilon}, neg_epsilon={self.neg_epsilon}"


def _sums(rows: Rows) -> tuple[Tensor, ...]:
    return _sloped(rows).all()


def _times(rows: Rows) -> tuple[Tensor, Tensor]:
    """(r, k) and (r, m) how often each counts among the positives and the negatives."""
    return (rows.valid, rows.is_negative) if rows.times is None else rows.times


def _weights(rows: Rows) -> tuple[Tensor, ...]:
    return tuple(times.to(rows.d_an.dtype) for times in _times(rows))


def _means(rows: Rows, weights: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The mean distance of positives and of negatives, 0 of none, and how many there are, at least 1."""
    counts = [w.sum().clamp_min(1) for w in weights]
    return [(d * w).sum() / n for d, w, n in zip((rows.d_ap, rows.d_an), weights, counts, strict=True)], counts


def _sloped(rows: Rows) -> Sloped:
    """Of each anchor the sum of the distances of its positives, of its negatives, and how many these are."""
    if rows.times is not None:
        near, far = rows.times
        sums = (rows.d_ap * near).sum(1), (rows.d_an * far).sum(1)
    else:
        none = rows.d_an.shape[1] - rows.num_negatives
        sums = rows.only_positives(rows.d_ap).sum(1), rows.d_an.clamp_max(NONE).sum(1) - NONE * none

    def pull(*by: Any) -> tuple[Tensor | None, ...]:
        return tuple(
            None if g is None else times.to(rows.d_an.dtype) * g for g, times in zip(by, _times(rows), strict=True)
        )

    return Sloped(sums, counts_of(rows), pull)
