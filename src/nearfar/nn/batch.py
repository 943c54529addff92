"""One call of an embedding loss: what it was given, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn.grades import GradedColumns, GradedPairs, GradedRelation
from nearfar.nn.labels import ALL, Grades, GroupedClasses, Labels, Relation, RuledLabels, SharedLabels
from nearfar.nn.precision import raised

if TYPE_CHECKING:
    from nearfar.nn.selection import Selection

__all__ = ["Batch", "check_embeddings", "check_labels", "check_range"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Embeddings, their labels, the set they are compared with, and what a miner selected.

    Attributes
    ----------
    embeddings
        (n, d), float32 or float64.
    labels
        (n,) int64 class ids, or None when a selection or a relation stands for them.
    reference, reference_labels
        (m, d) and (m,): the set to compare with; the batch itself when no other was given.
    selection
        What the miner chose, or None for everything.
    is_self
        Whether the reference *is* the batch, so that element i is not compared with itself.
    given
        The embeddings and references as they were given, before half precision was raised: by them two batches
        are known to be one.
    relation
        Who belongs together where that is not told by class ids, as of multi-hot labels.
    """

    embeddings: Tensor
    labels: Tensor | None
    reference: Tensor
    reference_labels: Tensor | None
    selection: Selection | None
    is_self: bool
    given: tuple[Tensor, Tensor]
    relation: Relation | None = None

    @classmethod
    def of(
        cls,
        embeddings: Tensor,
        labels: Labels | None = None,
        selection: Selection | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Batch:
        """Check what a loss or miner was called with; half precision is raised to float32.

        Raises
        ------
        InputError
            A shape, dtype or length does not fit; the message has what was found.
        """
        given, labels_given = embeddings, labels
        embeddings = check_embeddings(embeddings, "embeddings")
        if labels is not None:
            labels = check_any_labels(labels, embeddings, "labels")
        elif selection is None:
            raise InputError("labels are needed where no indices_tuple says which embeddings belong together")
        # The batch itself under another name is still the batch: its elements are not their own positives.
        if ref_emb is None or ref_emb is given:
            if ref_labels is not None and ref_labels is not labels_given:
                if ref_emb is None:
                    raise InputError("ref_labels were given without ref_emb")
                if labels is None or not _equal(check_any_labels(ref_labels, embeddings, "ref_labels"), labels):
                    raise InputError("ref_emb is the batch itself, but ref_labels are not its labels")
            ids, _, relation = _told_by(labels, labels, embeddings, embeddings)
            return cls(embeddings, ids, embeddings, ids, selection, True, (given, given), relation)
        reference = check_embeddings(ref_emb, "ref_emb").to(embeddings.dtype)
        if reference.shape[1] != embeddings.shape[1]:
            raise InputError(
                f"embeddings {tuple(embeddings.shape)} and ref_emb {tuple(reference.shape)} differ in embedding size"
            )
        if isinstance(labels, Grades):
            if ref_labels is not None:
                raise InputError("Grades are about embeddings and ref_emb together: leave out ref_labels")
            ref_labels = labels
        elif ref_labels is not None:
            ref_labels = check_any_labels(ref_labels, reference, "ref_labels")
        elif labels is not None and selection is None:
            raise InputError("ref_emb was given without ref_labels")
        ids, ref_ids, relation = _told_by(labels, ref_labels, embeddings, reference)
        return cls(embeddings, ids, reference, ref_ids, selection, False, (given, ref_emb), relation)

    @property
    def is_graded(self) -> bool:
        """Whether labels grade how relevant references are, rather than tell positives from negatives."""
        return isinstance(self.relation, GradedRelation)

    def class_ids(self, name: str) -> tuple[Tensor, Tensor]:
        """``(labels, reference_labels)``, (n,) and (m,), for a part of this name that goes by classes.

        Raises
        ------
        InputError
            There are no labels, or they are no class ids.
        """
        if self.labels is not None and self.reference_labels is not None:
            return self.labels, self.reference_labels
        found = "" if self.relation is None else "; these are multi-hot, matched by a rule, or grades"
        raise InputError(f"{name} needs labels: a class id for each embedding{found}")

    def positive_mask(self, anchors: slice = ALL) -> Tensor:
        """(n, m) boolean: which references are positives of which embedding, or of some; never an element of itself."""
        if self.relation is None:
            return self._without_self(self._same_label(anchors), anchors)
        return self._without_self(self.relation.positive(anchors), anchors)

    def negative_mask(self, anchors: slice = ALL) -> Tensor:
        """(n, m) boolean: which references are negatives of which embedding, or of some; never an element of itself."""
        if self.relation is None:
            return ~self._same_label(anchors)
        return self._without_self(self.relation.negative(anchors), anchors)

    def grades(self, anchors: slice = ALL) -> Tensor:
        """(n, m) floating: how relevant each reference is to which embedding, from 0 to 1; without grades 1 for
        positives and 0 for others. What it says of an element and itself is not to be heeded."""
        if isinstance(self.relation, GradedRelation):
            return self.relation.grades(anchors)
        return self.positive_mask(anchors).to(self.embeddings.dtype)

    def apart(self, anchors: slice = ALL) -> Tensor:
        """(n, m) floating: how far labels are from each other; without grades 0 of positives and 1 of others."""
        if isinstance(self.relation, GradedRelation):
            return self.relation.apart(anchors)
        return 1 - self.grades(anchors)

    def pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(anchor, positive, anchor, negative)``: what was selected, or every pair where nothing was."""
        if self.selection is not None:
            return self.selection.pairs()
        a1, p = torch.where(self.positive_mask())
        a2, n = torch.where(self.negative_mask())
        return a1, p, a2, n

    def triplets(self) -> tuple[Tensor, Tensor, Tensor]:
        """``(anchor, positive, negative)``: what was selected, or every triplet where nothing was.

        All triplets come by anchor, then positive, then negative.
        """
        if self.selection is not None:
            return self.selection.triplets()
        anchors, positives = torch.where(self.positive_mask())
        pair, negatives = torch.where(self.negative_mask()[anchors])
        return anchors[pair], positives[pair], negatives

    def _same_label(self, anchors: slice) -> Tensor:
        if self.labels is None or self.reference_labels is None:
            raise InputError("labels are needed where no indices_tuple says which embeddings belong together")
        return self.labels[anchors, None] == self.reference_labels

    def _without_self(self, mask: Tensor, anchors: slice) -> Tensor:
        if self.is_self:
            mask.diagonal(anchors.start or 0).fill_(False)
        return mask


def _equal(first: Labels, second: Labels) -> bool:
    if isinstance(first, RuledLabels) and isinstance(second, RuledLabels):
        return first.rule == second.rule and torch.equal(first.columns, second.columns)
    return isinstance(first, Tensor) and isinstance(second, Tensor) and torch.equal(first, second)


def _told_by(
    labels: Labels | None, ref_labels: Labels | None, embeddings: Tensor, reference: Tensor
) -> tuple[Tensor | None, Tensor | None, Relation | None]:
    """Class ids as they are; of other labels none, and who belongs together."""
    ids, ref_ids = (x if isinstance(x, Tensor) and x.ndim == 1 else None for x in (labels, ref_labels))
    if labels is None or ref_labels is None or (ids is not None and ref_ids is not None):
        return ids, ref_ids, None  # where one is not given, a selection says the rest
    return None, None, _relation(labels, ref_labels, embeddings, reference)


def _relation(labels: Labels, ref_labels: Labels, embeddings: Tensor, reference: Tensor) -> Relation:
    dtype = embeddings.dtype
    if isinstance(labels, Grades) and labels is ref_labels:
        if labels.matrix.shape != (len(embeddings), len(reference)):
            sizes = f"({len(embeddings)}, {len(reference)}), a row for each embedding and a column for each reference"
            raise InputError(f"grades must be of shape {sizes}; got {tuple(labels.matrix.shape)}")
        return GradedPairs(labels.matrix.to(dtype))
    if isinstance(labels, RuledLabels) and isinstance(ref_labels, RuledLabels) and labels.rule == ref_labels.rule:
        columns = labels.columns, ref_labels.columns
        if not labels.is_graded:
            return GroupedClasses(labels.rule, *columns)
        if columns[0].shape[1] == columns[1].shape[1]:
            return GradedColumns.of_rule(labels.rule, *columns, dtype)
    if (
        isinstance(labels, Tensor)
        and isinstance(ref_labels, Tensor)
        and labels.ndim == ref_labels.ndim
        and labels.shape[1] == ref_labels.shape[1]
    ):
        first = labels.float()
        return SharedLabels(first, first if ref_labels is labels else ref_labels.float())
    raise InputError(
        f"labels ({_kind(labels)}) and ref_labels ({_kind(ref_labels)}) must be of one kind: class ids, multi-hot of "
        "as many classes, or matched by one rule"
    )


def _kind(labels: Labels) -> str:
    if isinstance(labels, Grades):
        return "grades"
    if isinstance(labels, RuledLabels):
        return f"matched by {labels.rule}" + (f", {labels.columns.shape[1]} columns" if labels.is_graded else "")
    return "class ids" if labels.ndim == 1 else f"multi-hot of {labels.shape[1]} classes"


def check_embeddings(embeddings: Tensor, name: str) -> Tensor:
    """Return ``embeddings`` in at least float32, or raise :class:`InputError`."""
    if not isinstance(embeddings, Tensor):
        raise InputError(f"{name} must be a tensor (batch, dim); got {type(embeddings).__name__}")
    if embeddings.ndim != 2:
        raise InputError(f"{name} must be of shape (batch, dim); got {tuple(embeddings.shape)}")
    if not embeddings.is_floating_point():
        raise InputError(f"{name} must be of a floating dtype; got {embeddings.dtype}")
    return raised(embeddings)


def check_any_labels(labels: Labels, embeddings: Tensor, name: str) -> Labels:
    """Return class ids as :func:`check_labels` does; multi-hot labels (batch, classes), those with a rule and grades as
    they are, on the device of ``embeddings``; or raise :class:`InputError`."""
    is_hot = isinstance(labels, Tensor) and labels.ndim == 2 and labels.dtype == torch.bool
    if not is_hot and not isinstance(labels, RuledLabels | Grades):
        return check_labels(labels, embeddings, name)
    if len(labels) != len(embeddings):
        raise InputError(f"{name} must have a row for each of {len(embeddings)} embeddings; got {len(labels)}")
    return labels.to(embeddings.device)


def check_labels(labels: Tensor, embeddings: Tensor, name: str) -> Tensor:
    """Return ``labels`` as int64 on the device of ``embeddings``, or raise :class:`InputError`."""
    if not isinstance(labels, Tensor):
        raise InputError(f"{name} must be a tensor of class ids (batch,); got {type(labels).__name__}")
    if labels.ndim != 1 or labels.shape[0] != embeddings.shape[0]:
        raise InputError(
            f"{name} must be of shape ({len(embeddings)},), one class id for each embedding; got {tuple(labels.shape)}"
            + (" (multi-hot labels, of which an embedding may have several, are boolean)" if labels.ndim == 2 else "")
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"{name} must be class ids of an integer dtype; got {labels.dtype}")
    return labels.to(embeddings.device, torch.int64)


def check_range(index: Tensor, size: int, message: str) -> None:
    """Raise :class:`InputError` unless all of ``index`` lie in 0 … size − 1.

    ``message`` may hold ``{low}`` and ``{high}``, what was found. On a GPU, and compiled, the check is put in the
    stream instead of waiting for it, and ends the program there: an index kernel would take −1 for the last.
    """
    if not len(index):
        return
    is_compiled = torch.compiler.is_compiling()
    if index.device.type == "cpu" and not is_compiled:
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= size:
            raise InputError(message.format(low=low, high=high))
    elif index.device.type == "cuda" or is_compiled:
        unread = message.format(low="?", high="?") + " (? was not read, for which the device would be waited for)"
        torch._assert_async(((index >= 0) & (index < size)).all(), unread)
