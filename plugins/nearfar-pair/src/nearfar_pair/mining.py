"""What miners have in common that look at one anchor's row of distances after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from nearfar.nn.batch import Batch
from nearfar_pair.few_rows import slices
from nearfar_pair.mask_sides import sides_of
from nearfar_pair.row_pass import RowPass
from nearfar_pair.row_plan import Formula
from nearfar_pair.rule_distance import RuleDistance
from nearfar_pair.sides import Rows

__all__ = ["Passes", "choices"]


def choices(batch: Batch, distance: Any, formula: Formula, *, narrow: bool = True, is_ragged: bool = False) -> RowPass:
    """A formula of an anchor's row that chooses, applied to every anchor of a batch; nothing is differentiated.

    The table of positives is by anchor, and each anchor's are in the order of the references. A formula that does not
    go through them one by one takes a wide one too, which costs less in small batches.
    """
    embeddings, reference = batch.embeddings.detach(), batch.reference.detach()
    batch = dataclasses.replace(batch, embeddings=embeddings, reference=reference)
    return RowPass(batch, distance, formula, narrow=narrow, is_ragged=is_ragged)


class Passes:
    """The rows of all anchors by label, as often as they are asked for, in the same few at a time.

    Parameters
    ----------
    batch, distance
        What is compared, and by what.
    """

    def __init__(self, batch: Batch, distance: Any) -> None:
        batch = dataclasses.replace(batch, selection=None)
        self._sides = sides_of(batch, narrow=True)
        self._measured = RuleDistance(batch, distance)

    def __iter__(self) -> Iterator[Rows]:
        if not self._sides.shape[1]:
            return
        for anchors in slices(self._sides):
            yield self._sides.rows(self._measured(anchors), anchors, in_place=True)

    @property
    def shape(self) -> tuple[int, int]:
        """How many anchors there are, and references."""
        return self._sides.shape
