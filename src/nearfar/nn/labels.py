"""Who belongs together where that is not told by one class id each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import InputError

__all__ = ["ALL", "GroupedClasses", "Labels", "Relation", "RuledLabels", "SharedLabels"]

#: Every anchor of a batch.
ALL = slice(None)


class Relation(ABC):
    """Which references are positives and which negatives of each anchor, a few anchors at a time.

    A reference may be neither. That an element is not compared with itself is not its matter.
    """

    @abstractmethod
    def positive(self, anchors: slice = ALL) -> Tensor:
        """(r, m) boolean: which references are positives of these anchors."""

    @abstractmethod
    def negative(self, anchors: slice = ALL) -> Tensor:
        """(r, m) boolean: which references are negatives of these anchors."""

    @abstractmethod
    def of(self, anchors: Tensor) -> Relation:
        """The relation of other anchors, which are those of an index tensor."""

    @abstractmethod
    def turned(self) -> Relation:
        """The relation with the references for anchors."""


@dataclass(frozen=True, slots=True, eq=False)
class SharedLabels(Relation):
    """Multi-hot labels: positives share at least one, negatives none.

    Attributes
    ----------
    anchor_labels, reference_labels
        (n, classes) and (m, classes) float32, 0 or 1.
    """

    anchor_labels: Tensor
    reference_labels: Tensor

    def positive(self, anchors: slice = ALL) -> Tensor:
        return self.anchor_labels[anchors] @ self.reference_labels.T > 0.5

    def negative(self, anchors: slice = ALL) -> Tensor:
        return ~self.positive(anchors)

    def of(self, anchors: Tensor) -> SharedLabels:
        return SharedLabels(self.anchor_labels[anchors], self.reference_labels)

    def turned(self) -> SharedLabels:
        return SharedLabels(self.reference_labels, self.anchor_labels)


#: Rule → what of two samples' groups has to be so for them to be positives, and to be negatives: equal (True), unequal
#: (False), or anything (None). Positives are of one class, negatives of two.
RULES: dict[str, tuple[bool | None, bool | None]] = {
    "other_group": (False, None),
    "same_group": (True, True),
}


@dataclass(frozen=True, slots=True, eq=False)
class RuledLabels:
    """Labels of two columns, a class and a group, and the name of the rule by which they are matched.

    They take the place of a tensor of labels in calls of losses, miners and criteria.

    Attributes
    ----------
    rule
        ``other_group``: positives are of one class and different groups, negatives of different classes, and two
        samples of one class and group are neither: so re-identification matches across cameras. ``same_group``:
        positives and negatives are of one group, and samples of different groups neither: so several data sets are
        trained on whose classes may overlap.
    columns
        (n, 2) integers: the class and the group of each sample.

    Raises
    ------
    InputError
        The rule is unknown, or the columns are not (n, 2) integers.
    """

    rule: str
    columns: Tensor

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise InputError(f"labels are matched by {' or '.join(RULES)}; not by {self.rule!r}")
        found = self.columns
        if found.ndim != 2 or found.shape[1] != 2 or found.dtype == torch.bool or found.is_floating_point():
            raise InputError(
                f"labels matched by {self.rule} are integers (batch, 2), a class and a group each; got {found.dtype} "
                f"{tuple(found.shape)}"
            )

    def __len__(self) -> int:
        return len(self.columns)

    def to(self, device: torch.device | str) -> RuledLabels:
        """The labels on a device."""
        return RuledLabels(self.rule, self.columns.to(device, torch.int64))


#: What may be given as labels: class ids, multi-hot, or matched by a rule.
Labels = Tensor | RuledLabels


@dataclass(frozen=True, slots=True, eq=False)
class GroupedClasses(Relation):
    """Classes and groups, matched by a rule.

    Attributes
    ----------
    rule
        As of :class:`RuledLabels`.
    anchor_columns, reference_columns
        (n, 2) and (m, 2).
    """

    rule: str
    anchor_columns: Tensor
    reference_columns: Tensor

    def positive(self, anchors: slice = ALL) -> Tensor:
        return self._where(anchors, RULES[self.rule][0], of_one_class=True)

    def negative(self, anchors: slice = ALL) -> Tensor:
        return self._where(anchors, RULES[self.rule][1], of_one_class=False)

    def of(self, anchors: Tensor) -> GroupedClasses:
        return GroupedClasses(self.rule, self.anchor_columns[anchors], self.reference_columns)

    def turned(self) -> GroupedClasses:
        return GroupedClasses(self.rule, self.reference_columns, self.anchor_columns)

    def _where(self, anchors: slice, of_one_group: bool | None, *, of_one_class: bool) -> Tensor:
        mask = self._same(0, anchors) if of_one_class else ~self._same(0, anchors)
        if of_one_group is None:
            return mask
        return mask & (self._same(1, anchors) if of_one_group else ~self._same(1, anchors))

    def _same(self, column: int, anchors: slice) -> Tensor:
        return self.anchor_columns[anchors, column, None] == self.reference_columns[:, column]
