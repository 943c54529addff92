"""How relevant references are to anchors, where that is more or less rather than yes or no."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.nn.labels import ALL, Relation

__all__ = ["GradedColumns", "GradedPairs", "GradedRelation"]


class GradedRelation(Relation):
    """A relation of grades in [0, 1]: a positive is what is relevant at all, a negative what is not."""

    @abstractmethod
    def grades(self, anchors: slice = ALL) -> Tensor:
        """(r, m) floating: how relevant each reference is to these anchors, from 0 to 1."""

    def apart(self, anchors: slice = ALL) -> Tensor:
        """(r, m) floating, at least 0: how far the labels of each reference are from those of these anchors."""
        return 1 - self.grades(anchors)

    def positive(self, anchors: slice = ALL) -> Tensor:
        return self.grades(anchors) > 0

    def negative(self, anchors: slice = ALL) -> Tensor:
        return self.grades(anchors) == 0


@dataclass(frozen=True, slots=True, eq=False)
class GradedColumns(GradedRelation):
    """Columns that a rule grades.

    Attributes
    ----------
    rule
        ``jaccard``, ``levels`` or ``gaussian``, as of :class:`~nearfar.nn.labels.RuledLabels`.
    anchor_columns, reference_columns
        (n, c) and (m, c), in the dtype of the grades; of ``levels`` integers.
    dtype
        Of the grades.
    """

    rule: str
    anchor_columns: Tensor
    reference_columns: Tensor
    dtype: torch.dtype

    @classmethod
    def of_rule(cls, rule: str, anchors: Tensor, references: Tensor, dtype: torch.dtype) -> GradedColumns:
        """From columns as they were given."""
        if rule != "levels":
            anchors, references = anchors.to(dtype), references.to(dtype)
        return cls(rule, anchors, references, dtype)

    def grades(self, anchors: slice = ALL) -> Tensor:
        if self.rule == "gaussian":
            return self.apart(anchors).square().div(-2).exp()
        return self._shared_levels(anchors) if self.rule == "levels" else self._jaccard(anchors)

    def apart(self, anchors: slice = ALL) -> Tensor:
        if self.rule != "gaussian":
            return 1 - self.grades(anchors)
        # Differences rather than products: labels that are near each other are what is asked about.
        mode = "donot_use_mm_for_euclid_dist"
        found: Tensor = torch.cdist(self.anchor_columns[anchors], self.reference_columns, compute_mode=mode)
        return found

    def of(self, anchors: Tensor) -> GradedColumns:
        return GradedColumns(self.rule, self.anchor_columns[anchors], self.reference_columns, self.dtype)

    def turned(self) -> GradedColumns:
        return GradedColumns(self.rule, self.reference_columns, self.anchor_columns, self.dtype)

    def _jaccard(self, anchors: slice) -> Tensor:
        own = self.anchor_columns[anchors]
        shared = own @ self.reference_columns.T
        either = own.sum(1)[:, None] + self.reference_columns.sum(1) - shared
        return shared / either.clamp_min(1)

    def _shared_levels(self, anchors: slice) -> Tensor:
        own = self.anchor_columns[anchors]
        same = torch.ones(len(own), len(self.reference_columns), dtype=torch.bool, device=own.device)
        shared = torch.zeros_like(same, dtype=self.dtype)
        for level in range(own.shape[1]):
            same &= own[:, level, None] == self.reference_columns[:, level]
            shared += same
        return shared / own.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class GradedPairs(GradedRelation):
    """Grades that were given pair by pair.

    Attributes
    ----------
    matrix
        (n, m), in [0, 1].
    """

    matrix: Tensor

    def grades(self, anchors: slice = ALL) -> Tensor:
        return self.matrix[anchors]

    def of(self, anchors: Tensor) -> GradedPairs:
        return GradedPairs(self.matrix[anchors])

    def turned(self) -> GradedPairs:
        return GradedPairs(self.matrix.T)
