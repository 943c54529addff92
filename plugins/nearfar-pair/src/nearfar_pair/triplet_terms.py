"""Terms of losses that are a hinge of each triplet, of which none is made unless somebody asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.miners import same_distance
from nearfar.nn.selection import TripletRule, warn_if_many
from nearfar.nn.terms import MaterialTerms, Terms
from nearfar_pair.hinges import hinges
from nearfar_pair.once import once
from nearfar_pair.pair_distances import pair_distances
from nearfar_pair.row_pass import RowPass
from nearfar_pair.sides import Rows
from nearfar_pair.triplet_pairs import selects_all

__all__ = ["TripletTerms", "hinge_terms", "rule_for"]

#: How many elements of gaps are worked on at a time where triplets are made.
ELEMENTS = 2**17


def as_it_is(d: Tensor) -> Tensor:
    """The distance itself."""
    return d


class TripletTerms(Terms):
    """Hinges of the triplets of a rule; sums and counts make no triplet.

    Parameters
    ----------
    batch
        The batch the rule is about.
    distance
        What d is.
    rule
        Which triplets.
    margin
        Margin of the hinge.
    shape
        An increasing function of d that the hinge is of; it leaves what is far beyond all distances there.
    """

    kind = "triplet"

    def __init__(
        self,
        batch: Batch,
        distance: Any,
        rule: TripletRule,
        margin: float,
        *,
        shape: Callable[[Tensor], Tensor] = as_it_is,
    ) -> None:
        self.num_anchors = len(batch.embeddings)
        self.labels = batch.labels
        self._rule, self._margin, self._shape = rule, margin, shape
        # The rule is applied here; what remains is told by labels, which the batch it is about has.
        self._batch = dataclasses.replace(
            batch,
            selection=None,
            labels=rule.batch.labels,
            reference_labels=rule.batch.reference_labels,
            relation=rule.batch.relation,
        )
        self._rows = RowPass(self._batch, distance, self._hinges, narrow=True)

    def _hinges(self, rows: Rows) -> tuple[Tensor, ...]:
        if self._shape is not as_it_is:
            rows = dataclasses.replace(rows, d_ap=self._shape(rows.d_ap), d_an=self._shape(rows.d_an))
        return hinges(rows, self._margin, self._rule.lower, self._rule.upper)

    def sum(self) -> Tensor:
        return self._rows.totals[0]

    def sum_positive(self) -> Tensor:
        return self.sum()  # a hinge is never negative

    def sum_by_anchor(self) -> Tensor:
        return self._rows.outputs[0]

    def count(self) -> Tensor:
        return self.count_by_anchor().sum()

    def count_by_anchor(self) -> Tensor:
        return self._rows.found[1]

    def count_positive(self) -> Tensor:
        return self._rows.found[2].sum()

    @property
    def values(self) -> Tensor:
        return self._material[0]

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return self._material[1]

    def blocks(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        d, batch = self._shape(self._rows.matrix), self._batch
        anchors, positives = torch.where(batch.positive_mask())
        negative = batch.negative_mask()
        step = max(1, ELEMENTS // max(1, d.shape[1]))
        for start in range(0, max(1, len(anchors)), step):
            a, p = anchors[start : start + step], positives[start : start + step]
            with torch.no_grad():
                gap = d[a] - d[a, p][:, None]
                pair, n = torch.where(self._rule.holds(gap) & negative[a])
            a, p = a[pair], p[pair]
            yield torch.relu(d[a, p] - d[a, n] + self._margin), (a, p, n)

    @once
    def _material(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.set_grad_enabled(self._rows.needs_grad):
            parts = list(self.blocks())
            values = torch.cat([values for values, _ in parts])
        warn_if_many(len(values))
        return values, tuple(torch.cat(column) for column in zip(*(indices for _, indices in parts), strict=True))


def rule_for(batch: Batch, distance: Any) -> TripletRule | None:
    """The rule by which the triplets of a batch were selected, all where none were; None where it is no rule, or one
    on other distances."""
    rule = batch.selection
    if rule is None:
        return TripletRule(batch, distance)
    if not isinstance(rule, TripletRule):
        return None
    if selects_all(rule):
        return rule
    is_same = same_distance(rule.distance, distance) and rule.batch.is_self == batch.is_self
    return rule if is_same and all(map(_equal, rule.batch.given, batch.given)) else None


def hinge_terms(batch: Batch, distance: Any, margin: float) -> Terms:
    """Terms of ``[d(a, p) − d(a, n) + margin]₊`` of the selected triplets, or of all, none made where a rule tells."""
    rule = rule_for(batch, distance)
    if rule is not None:
        return TripletTerms(batch, distance, rule, margin)
    a, p, n = batch.triplets()
    reference = None if batch.is_self else batch.reference
    d_ap, d_an = (pair_distances(distance, batch.embeddings, reference, a, other) for other in (p, n))
    values = torch.relu(d_ap - d_an + margin)
    return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings), labels=batch.labels)


def _equal(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same numbers; most often they are one, and then nothing is compared."""
    return first is second or torch.equal(first, second)
