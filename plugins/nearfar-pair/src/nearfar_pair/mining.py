"""What miners have in common that look at one anchor's row of distances after another."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from nearfar.nn.batch import Batch
from nearfar_pair.few_rows import slices
from nearfar_pair.mask_sides import sides_of
from nearfar_pair.once import once
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
    embeddings, reference = batch.embeddings, batch.reference
    if embeddings.requires_grad or reference.requires_grad:
        batch = dataclasses.replace(batch, embeddings=embeddings.detach(), reference=reference.detach())
    return RowPass(batch, distance, formula, narrow=narrow, is_ragged=is_ragged)


class Passes:
    """The rows of all anchors by label, as often as they are asked for, in the same few at a time.

    Parameters
    ----------
    batch, distance
        What is compared, and by what.
    """

    def __init__(self, batch: Batch, distance: Any) -> None:
        if batch.selection is not None:
            batch = dataclasses.replace(batch, selection=None)
        self._sides = sides_of(batch)
        self._measured = RuleDistance(batch, distance)

    def __iter__(self) -> Iterator[Rows]:
        if self.only is not None:
            yield self.only
        elif self._sides.shape[1]:
            for anchors in slices(self._sides):
                yield self._rows(anchors)

    @once
    def only(self) -> Rows | None:
        """All rows, where they are few enough to be had at once."""
        anchors = [*itertools.islice(slices(self._sides), 2)] if self._sides.shape[1] else []
        return self._rows(anchors[0]) if len(anchors) == 1 else None

    def _rows(self, anchors: slice) -> Rows:
        d = self._measured(anchors)
        is_whole = anchors == slice(0, self.shape[0])
        return self._sides.whole(d) if is_whole else self._sides.rows(d, anchors, in_place=True)

    @property
    def shape(self) -> tuple[int, int]:
        """How many anchors there are, and references."""
        return self._sides.shape
