"""Positive pairs and what stands against both their ends."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.selection import IndexSelection, Selection
from nearfar_pair.chosen import rule_of
from nearfar_pair.few_rows import slices
from nearfar_pair.mask_sides import sides_of
from nearfar_pair.row_pass import RowPass
from nearfar_pair.row_plan import Formula
from nearfar_pair.rule_distance import RuleDistance
from nearfar_pair.sides import FAR, PairRule, Rows

__all__ = ["BothEnds", "turned"]


@dataclass(frozen=True, slots=True, eq=False)
class BothEnds:
    """A number for each embedding, of its negatives, at both ends of every positive pair.

    With a reference set the negatives of its end of a pair are embeddings of the batch.

    Attributes
    ----------
    d_ap
        (n, k) distances of the positives, −FAR where there is none.
    anchor, positive
        (n, 1) and (n, k) or (k,) the number of either end.
    threatened
        (n, k) boolean: which positive pairs there are of which an end has a negative.
    """

    d_ap: Tensor
    anchor: Tensor
    positive: Tensor
    threatened: Tensor

    @classmethod
    def within(cls, rows: Rows, number: Tensor) -> BothEnds:
        """Of the rows of a whole batch that is compared with itself, and a number for each."""
        negatives = rows.num_negatives
        threatened = rows.valid & (negatives.unsqueeze(1) + _at_positives(rows, negatives) > 0)
        return cls(rows.d_ap, number.unsqueeze(1), _at_positives(rows, number), threatened)

    @classmethod
    def of(cls, batch: Batch, distance: Any, formula: Formula) -> tuple[RowPass, BothEnds]:
        """Ask ``formula``, which gives of :class:`Rows` the number, −FAR where there is no negative, the distances of
        the positives, which of them there are, and how many negatives; and the pass that has the table of positives."""
        rows = RowPass(batch, distance, formula)
        own, d_ap, valid, negatives = rows.outputs
        other, other_negatives = own, negatives
        if not batch.is_self:
            other, *_, other_negatives = RowPass(turned(batch), distance, formula).outputs
            # The table points somewhere even where there is no reference.
            other, other_negatives = F.pad(other, (0, 1), value=-FAR), F.pad(other_negatives, (0, 1))
        if rows.sides.is_wide:  # a place for each reference, in their order, so that nothing has to be fetched
            size = rows.sides.shape[1]
            positive, positive_negatives = other[:size], other_negatives[:size]
        else:
            positives = rows.table[0]
            positive, positive_negatives = other[positives], other_negatives[positives]
        threatened = valid & ((negatives[:, None] + positive_negatives) > 0)
        return rows, cls(d_ap, own[:, None], positive, threatened)


def _at_positives(rows: Rows, numbers: Tensor) -> Tensor:
    """(n, k) or (k,) of a number for each of a batch those of the positives."""
    return numbers if rows.is_wide else numbers[rows.positives]


def turned(batch: Batch) -> Batch:
    """The batch with the references for anchors; of what was selected only negatives matter."""
    rule = rule_of(batch)
    selection: Selection | None = None
    if rule is not None:
        told = rule.batch
        batch = dataclasses.replace(
            batch, labels=told.labels, reference_labels=told.reference_labels, relation=told.relation
        )
        selection = _TurnedRule(rule, _exchanged(told))
    elif batch.selection is not None:
        _, _, a, n = batch.selection.pairs()
        selection = IndexSelection((n[:0], a[:0], n, a))
    return dataclasses.replace(_exchanged(batch), selection=selection)


def _exchanged(batch: Batch) -> Batch:
    """The batch with the references for anchors, and no selection."""
    return dataclasses.replace(
        batch,
        embeddings=batch.reference,
        labels=batch.reference_labels,
        reference=batch.embeddings,
        reference_labels=batch.labels,
        selection=None,
        given=batch.given[::-1],
        relation=None if batch.relation is None else batch.relation.turned(),
    )


class _TurnedRule(PairRule):
    """The negatives that a rule selects, asked by what they are negatives of; no positives.

    It may go by all of an anchor's row, so that all rows are gone through first, of which a bit a pair is kept.

    Parameters
    ----------
    rule
        A rule on the batch as it was.
    batch
        The batch the other way round.
    """

    def __init__(self, rule: PairRule, batch: Batch) -> None:
        super().__init__(batch, rule.distance)
        sides, measured = sides_of(rule.batch, rule, narrow=True), RuleDistance(rule.batch, rule.distance)
        self._negative = torch.zeros(sides.shape, dtype=torch.bool, device=sides.device)
        for anchors in slices(sides) if sides.shape[1] else ():
            self._negative[anchors] = sides.rows(measured(anchors), anchors, in_place=True).is_negative

    def keep(self, rows: Rows) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(rows.valid), self._negative[:, rows.anchors].T

    def indices(self) -> tuple[Tensor, ...]:
        n, a = torch.where(self._negative.T)
        return n[:0], a[:0], n, a
