"""Base classes of the losses that look at one anchor's row of distances after another.

An author writes a formula of :class:`~nearfar_pair.sides.Rows` in ordinary torch; that no matrix of all pairs is kept,
the reference set, selections, distances and reducers come with it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.selection import Selection
from nearfar.nn.terms import MaterialTerms, Terms
from nearfar_pair.chosen import rule_of
from nearfar_pair.compiled.rules import mined
from nearfar_pair.pair_distances import both_distances
from nearfar_pair.row_pass import Loop, RowPass, is_table_cheaper
from nearfar_pair.row_terms import PairSide, RowTerms
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped, SlopedFormula

__all__ = ["AnchorLoss", "PairLoss", "PositiveLoss", "SlopedLoss", "counts_of", "threshold"]


class AnchorLoss(EmbeddingLoss):
    """A loss with one cost for each anchor; its terms are ``element``."""

    kind = "element"
    #: Whether a cost can be below zero.
    signed = False
    #: Whether every anchor has a cost, so that nobody needs to count.
    is_full = False

    @abstractmethod
    def costs(self, rows: Rows, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """The costs (r,) of anchors, 0 where there is none, and which have one, boolean (r,)."""

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        """What :meth:`costs` gets besides the rows, to be differentiated by."""
        return ()

    @property
    def slopes(self) -> SlopedFormula | None:
        """The formula with its own slopes, where it knows them."""
        return None

    @property
    def loop(self) -> Loop | None:
        """The same by kernels, where there are any."""
        return None

    def narrow(self, batch: Batch) -> bool:
        """Whether the formula does so much with each positive that their table should be no wider than it has to be."""
        return False

    def terms(self, batch: Batch) -> Terms | Mapping[str, Terms]:
        narrow = self.narrow(batch)
        given = self.costs, self.learned(batch)
        loop, told = mined(self.loop, batch, self.distance)
        rows = RowPass(batch, self.distance, *given, sloped=self.slopes, narrow=narrow, loop=loop, told=told)
        return RowTerms(self.kind, rows, signed=self.signed, is_full=self.is_full, labels=batch.labels)


class SlopedLoss(AnchorLoss):
    """An anchor's loss whose formula knows its own slopes."""

    @abstractmethod
    def sloped(self, rows: Rows, *parameters: Tensor) -> Sloped:
        """The outputs of :meth:`costs`, and how a gradient by the sum of the costs goes back."""

    @property
    def slopes(self) -> SlopedFormula:
        return self.sloped

    def costs(self, rows: Rows, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        costs, counts = self.sloped(rows, *parameters).all()
        return costs, counts


class PositiveLoss(AnchorLoss):
    """A loss with a cost for each positive of each anchor, (r, k); its terms are ``pos_pair``."""

    kind = "pos_pair"

    def narrow(self, batch: Batch) -> bool:
        return is_table_cheaper(batch)


class PairLoss(EmbeddingLoss):
    """A loss with a cost, never below zero, for each positive and each negative pair; the two sides are reduced apart.

    Each cost is a function of the pair's distance, small for near, and of what :meth:`learned` has for its anchor. A
    pair that was selected twice counts twice.
    """

    @abstractmethod
    def positive_cost(self, d: Tensor, *of_anchor: Tensor) -> Tensor:
        """The costs of positive pairs, of the shape of their distances; 0 for what is infinitely near."""

    @abstractmethod
    def negative_cost(self, d: Tensor, *of_anchor: Tensor) -> Tensor:
        """The costs of negative pairs, of the shape of their distances; 0 for what is infinitely far."""

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        """What costs depend on besides, to be differentiated by: (n,) a number for each anchor, or any other shape."""
        return ()

    def of_anchors(self, rows: Rows, learned: Sequence[Tensor]) -> Sequence[Tensor]:
        """What costs depend on besides distances, as it goes with those of these anchors: (r, 1), or of any shape."""
        return [x[rows.anchors, None] if x.ndim == 1 else x for x in learned]

    def normalizer(self, batch: Batch, active: Callable[[], Tensor]) -> Tensor | float | None:
        """What the mean of either side divides by instead of the number of its pairs.

        ``active`` counts the pairs of both sides that cost something.
        """
        return None

    @property
    def slopes(self) -> SlopedFormula | None:
        """The formula of the sums of costs with its own slopes, where it knows them."""
        return None

    def loop(self, learned: tuple[Tensor, ...]) -> Loop | None:
        """The same by kernels, where there are any."""
        return None

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        learned = self.learned(batch)
        if batch.selection is not None and rule_of(batch) is None:
            return self._selected(batch, batch.selection, learned)
        rows = RowPass(batch, self.distance, self._sums, learned, sloped=self.slopes, sums=2, loop=self.loop(learned))
        sides = [PairSide(kind, rows, self._costs, labels=batch.labels) for kind in ("pos_pair", "neg_pair")]
        return self._named(batch, *sides)

    def _selected(self, batch: Batch, selection: Selection, learned: tuple[Tensor, ...]) -> Mapping[str, Terms]:
        a1, p, a2, n = selection.pairs()
        reference = None if batch.is_self else batch.reference
        d_ap, d_an = both_distances(self.distance, batch.embeddings, reference, (a1, p), (a2, n))
        positive = self.positive_cost(d_ap, *(x[a1] if x.ndim == 1 else x for x in learned))
        negative = self.negative_cost(d_an, *(x[a2] if x.ndim == 1 else x for x in learned))
        size, labels = len(batch.embeddings), batch.labels
        return self._named(
            batch,
            MaterialTerms("pos_pair", positive, (a1, p), num_anchors=size, labels=labels),
            MaterialTerms("neg_pair", negative, (a2, n), num_anchors=size, labels=labels),
        )

    def _named(self, batch: Batch, positive: Terms, negative: Terms) -> Mapping[str, Terms]:
        normalizer = self.normalizer(batch, lambda: positive.count_positive() + negative.count_positive())
        positive.normalizer = negative.normalizer = normalizer
        return {"positive": positive, "negative": negative}

    def _costs(self, rows: Rows, *learned: Tensor) -> tuple[Tensor, Tensor]:
        """The costs of the positives (r, k) and of all references (r, m); 0 where there is no such pair."""
        of_anchor = self.of_anchors(rows, learned)
        return self.positive_cost(rows.d_ap, *of_anchor), self.negative_cost(rows.d_an, *of_anchor)

    def _sums(self, rows: Rows, *learned: Tensor) -> tuple[Tensor, ...]:
        of_anchor = self.of_anchors(rows, learned)
        if rows.times is not None:
            return _counted(rows.times, *self._costs(rows, *learned))
        positive = self.positive_cost(rows.d_ap, *of_anchor)
        negative, active = self.negative_sums(rows, *of_anchor)
        costly = positive.detach().sign().sum(1).long()
        return positive.sum(1), negative, costly, active, rows.num_positives, rows.num_negatives

    def negative_sums(self, rows: Rows, *of_anchor: Tensor) -> tuple[Tensor, Tensor]:
        """(r,) the sum of the costs of each anchor's negatives, and how many cost something."""
        costs = self.negative_cost(rows.d_an, *of_anchor)
        # Their number as the sum of signs: a comparison and its sum take five times as long.
        return costs.sum(1), torch.sign(costs.detach(), out=rows.scratch).sum(1).long()


def counts_of(rows: Rows) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """How many positives and how many negatives were selected of each anchor, (r,) int64, each for who asks."""
    times = rows.times
    if times is None:
        return lambda: rows.num_positives, lambda: rows.num_negatives
    return lambda: times[0].sum(1).long(), lambda: times[1].sum(1).long()


def _counted(times: tuple[Tensor, Tensor], *costs: Tensor) -> tuple[Tensor, ...]:
    """The sums of pairs that were selected so many times, how many cost something, and how many there are."""
    sums = ((cost * n).sum(1) for cost, n in zip(costs, times, strict=True))
    active = (((cost > 0) * n).sum(1).long() for cost, n in zip(costs, times, strict=True))
    return *sums, *active, *(n.sum(1).long() for n in times)


def threshold(distance: Any, value: float) -> float:
    """A value of a distance as one of what is small for near: of a similarity its negative."""
    return -value if distance.is_inverted else value
