"""Who belongs together where that is not told by one class id each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import InputError

__all__ = ["ALL", "Grades", "GroupedClasses", "Labels", "Relation", "RuledLabels", "SharedLabels"]

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


#: Rule that gives grades → what its columns are, and their dtypes.
GRADED_RULES: dict[str, tuple[str, str]] = {
    "jaccard": ("(batch, classes), the labels that each sample has", "booleans"),
    "levels": ("(batch, levels), the classes of each sample from the coarsest to the finest", "integers"),
    "gaussian": ("(batch, dim), the point where each sample lies", "floating"),
}


@dataclass(frozen=True, slots=True, eq=False)
class RuledLabels:
    r"""Labels of several columns, and the name of the rule by which they are matched.

    They take the place of a tensor of labels in calls of losses, miners and criteria. By the first two rules samples
    are positives or negatives of each other; the others grade how relevant one is to another, from 0 to 1, for losses
    that take grades (``nearfar show`` says which do).

    Attributes
    ----------
    rule
        ``other_group``: positives are of one class and different groups, negatives of different classes, and two
        samples of one class and group are neither: so re-identification matches across cameras. ``same_group``:
        positives and negatives are of one group, and samples of different groups neither: so several data sets are
        trained on whose classes may overlap.

        ``jaccard``: the share of labels that two samples have in common, :math:`|A \cap B| / |A \cup B|`, and 0 of two
        that have none. ``levels``: how many levels of a hierarchy two samples share, from the coarsest on, over how
        many there are; the relevance of Ramzi et al. (2022), arXiv:2207.04873, with :math:`\alpha = 1` and without its
        division by the size of a level. ``gaussian``: :math:`\exp(-\lVert y - z \rVert^2 / 2)`, the kernel of Dufumier
        et al. (2021), arXiv:2106.08808, for ages, poses or places; divide them by the width of the kernel.
    columns
        Of ``other_group`` and ``same_group`` (n, 2) integers, the class and the group of each sample; of ``jaccard``
        (n, classes) booleans; of ``levels`` (n, levels) integers, the coarsest first, ids that are told apart within
        their level; of ``gaussian`` (n, dim) floating, at least float32.

    Raises
    ------
    InputError
        The rule is unknown, or the columns are not what it takes.
    """

    rule: str
    columns: Tensor

    def __post_init__(self) -> None:
        if self.rule not in RULES and self.rule not in GRADED_RULES:
            raise InputError(f"labels are matched by {_either(*RULES, *GRADED_RULES)}; not by {self.rule!r}")
        what, sort = GRADED_RULES.get(self.rule, ("(batch, 2), a class and a group each", "integers"))
        found = self.columns
        fits = _SORTS[sort](found.dtype) and found.ndim == 2 and (found.shape[1] == 2 or self.is_graded)
        if not fits or not found.shape[1]:
            raise InputError(f"labels matched by {self.rule} are {sort} {what}; got {found.dtype} {tuple(found.shape)}")

    @property
    def is_graded(self) -> bool:
        """Whether the rule gives grades rather than positives and negatives."""
        return self.rule in GRADED_RULES

    def __len__(self) -> int:
        return len(self.columns)

    def to(self, device: torch.device | str) -> RuledLabels:
        """The labels on a device."""
        columns = self.columns if self.rule in ("jaccard", "gaussian") else self.columns.to(torch.int64)
        return RuledLabels(self.rule, columns.to(device))


def _either(*names: str) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


_SORTS: dict[str, Callable[[torch.dtype], bool]] = {
    "booleans": lambda dtype: dtype == torch.bool,
    "integers": lambda dtype: dtype != torch.bool and not dtype.is_floating_point and not dtype.is_complex,
    "floating": lambda dtype: dtype.is_floating_point and dtype.itemsize >= 4,
}


@dataclass(frozen=True, slots=True, eq=False)
class Grades:
    """How relevant each reference is to each anchor, told pair by pair, in place of labels.

    For relevance that comes from elsewhere: the overlap of two views, a teacher's similarities, judgements. Losses
    that take grades take it; a reference set is then given without labels of its own.

    Attributes
    ----------
    matrix
        (n, m) floating, from 0, as irrelevant as a negative, to 1, as relevant as a positive; (n, n) where a batch is
        compared with itself, whose diagonal is not looked at.

    Raises
    ------
    InputError
        The matrix is none, or not floating, or (on the CPU) an entry is not in [0, 1].
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        found = self.matrix
        if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point():
            what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"grades are a floating matrix (batch, references); got {what}")
        if found.device.type == "cpu" and not torch.compiler.is_compiling():
            outside = ~((found >= 0) & (found <= 1))
            if bool(outside.any()):
                raise InputError(f"grades are from 0 to 1; got {float(found[outside][0]):g}")

    def __len__(self) -> int:
        return len(self.matrix)

    def to(self, device: torch.device | str) -> Grades:
        """The grades on a device."""
        return Grades(self.matrix.to(device))

    def turned(self) -> Grades:
        """The grades with the references for anchors."""
        return Grades(self.matrix.T)


#: What may be given as labels: class ids, multi-hot, matched by a rule, or graded pair by pair.
Labels = Tensor | RuledLabels | Grades


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
