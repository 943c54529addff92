"""Positive pairs and what stands against both their ends."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.selection import IndexSelection
from nearfar_pair.row_pass import Formula, RowPass
from nearfar_pair.sides import FAR

__all__ = ["BothEnds"]


@dataclass(frozen=True, slots=True, eq=False)
class BothEnds:
    """A number for each embedding, of its negatives, at both ends of every positive pair.

    With a reference set the negatives of its end of a pair are embeddings of the batch.

    Attributes
    ----------
    rows
        The pass that has the table of positives.
    d_ap
        (n, k) distances of the positives, −FAR where there is none.
    threatened
        (n, k) boolean: which positive pairs there are of which an end has a negative.
    anchor, positive
        (n, 1) and (n, k) the number of either end.
    """

    rows: RowPass
    d_ap: Tensor
    threatened: Tensor
    anchor: Tensor
    positive: Tensor

    @classmethod
    def of(cls, batch: Batch, distance: Any, formula: Formula) -> BothEnds:
        """Ask ``formula``, which gives of :class:`Rows` the number, −FAR where there is no negative, the distances of
        the positives, which of them there are, and how many negatives."""
        rows = RowPass(batch, distance, formula)
        own, d_ap, valid, negatives = rows.outputs
        other, other_negatives = own, negatives
        if not batch.is_self:
            other, *_, other_negatives = RowPass(_turned(batch), distance, formula).outputs
            # The table points somewhere even where there is no reference.
            other, other_negatives = F.pad(other, (0, 1), value=-FAR), F.pad(other_negatives, (0, 1))
        positives = rows.table[0]
        threatened = valid & ((negatives[:, None] + other_negatives[positives]) > 0)
        return cls(rows, d_ap, threatened, own[:, None], other[positives])


def _turned(batch: Batch) -> Batch:
    """The batch with the references for anchors; of what was selected only negatives matter."""
    selection = None
    if batch.selection is not None:
        _, _, a, n = batch.selection.pairs()
        selection = IndexSelection((n[:0], a[:0], n, a))
    return dataclasses.replace(
        batch,
        embeddings=batch.reference,
        labels=batch.reference_labels,
        reference=batch.embeddings,
        reference_labels=batch.labels,
        selection=selection,
        given=batch.given[::-1],
        relation=None if batch.relation is None else batch.relation.turned(),
    )
