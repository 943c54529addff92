"""What a miner hands to a loss: which pairs or triplets of a batch to look at.

``miner.select(…)`` returns a :class:`Selection`, as compact as the miner allows; ``miner(…)`` returns the
real tuple of index tensors that everybody else expects.
"""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import InputError, NearfarWarning
from nearfar.nn.batch import Batch, check_range
from nearfar.nn.distances import Distance
from nearfar.nn.precision import full_precision

__all__ = ["IndexSelection", "Selection", "TripletRule", "all_triplets", "as_selection", "check_sizes", "warn_if_many"]

IndicesTuple = tuple[Tensor, ...]


class Selection(ABC):
    """A choice of pairs or triplets; a subclass gives :meth:`indices`, the rest follows from it."""

    @abstractmethod
    def indices(self) -> IndicesTuple:
        """The index tensors: ``(anchor, positive, negative)``, or ``(anchor, positive, anchor, negative)``."""

    def check(self, batch: int, reference: int) -> None:  # noqa: B027  # most know of no sizes
        """Raise :class:`InputError` where it knows itself to be of another batch than one of these sizes."""

    def triplets(self) -> tuple[Tensor, Tensor, Tensor]:
        """``(anchor, positive, negative)``: pairs are joined on their anchor."""
        indices = self.indices()
        if len(indices) == 3:
            return indices
        a1, p, a2, n = indices
        # By a search in the sorted anchors: a table of both sides' pairs may not fit.
        ordered, order = a2.sort(stable=True)
        first = torch.searchsorted(ordered, a1)
        count = torch.searchsorted(ordered, a1, right=True) - first
        pair = torch.arange(len(a1), device=a1.device).repeat_interleave(count)
        place = torch.arange(len(pair), device=a1.device) - (count.cumsum(0) - count)[pair]
        return a1[pair], p[pair], n[order[first[pair] + place]]

    def pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(anchor, positive, anchor, negative)``; a triplet gives one pair of each sort, repeats and all."""
        indices = self.indices()
        if len(indices) == 4:
            return indices
        a, p, n = indices
        return a, p, a, n

    def weights(self, size: int, *, reference_is_batch: bool = True) -> Tensor:
        """How often each element of a batch of ``size`` was selected, over the greatest count: (size,) float64.

        An element nobody selected weighs 0, so a selection of nothing weighs everything 0.
        """
        indices = self.indices()
        anchors = (indices[0],) if len(indices) == 3 else (indices[0], indices[2])
        counted = indices if reference_is_batch else anchors
        chosen = torch.cat(counted)
        # Not by bincount, which waits for a GPU to know the greatest.
        counts = chosen.new_zeros(size).index_add(0, chosen, torch.ones_like(chosen)).double()
        return counts / counts.max().clamp_min(1) if size else counts


@dataclass(frozen=True, slots=True, eq=False)
class IndexSelection(Selection):
    """A selection whose index tensors are all there."""

    tensors: IndicesTuple

    def indices(self) -> IndicesTuple:
        return self.tensors


def as_selection(indices_tuple: Selection | Sequence[Tensor] | None, batch: int, reference: int) -> Selection | None:
    """A tuple of index tensors as a selection, checked; selections and None as they are.

    Raises
    ------
    InputError
        It has neither three nor four tensors, their lengths differ, (on the CPU) an index is out of range, or
        it is a selection made for a batch of another size.
    """
    if indices_tuple is None:
        return None
    if isinstance(indices_tuple, Selection):
        indices_tuple.check(batch, reference)
        return indices_tuple
    if len(indices_tuple) not in (3, 4):
        raise InputError(
            "indices_tuple must be (anchors, positives, negatives) or (anchors, positives, anchors, negatives); "
            f"got {len(indices_tuple)} tensors"
        )
    checked = []
    for position, index in enumerate(indices_tuple):
        if not isinstance(index, Tensor) or index.ndim != 1 or not _is_integer(index):
            raise InputError(f"indices_tuple[{position}] must be a one-dimensional tensor of integers")
        is_anchor = position == 0 or (len(indices_tuple) == 4 and position == 2)
        size, what = (batch, "embeddings") if is_anchor else (reference, "references")
        found = f"indices_tuple[{position}] has indices from {{low}} to {{high}}, but there are {size} {what}"
        check_range(index, size, found)
        checked.append(index.long())
    lengths = [len(index) for index in checked]
    if len(set(lengths[:2])) > 1 or len(set(lengths[-2:])) > 1 or (len(checked) == 3 and len(set(lengths)) > 1):
        raise InputError(f"the tensors of indices_tuple that belong together differ in length: {lengths}")
    return IndexSelection(tuple(checked))


def check_sizes(told: Batch, batch: int, reference: int) -> None:
    """Raise :class:`InputError` where the batch that a rule is about has other sizes than these."""
    sizes = len(told.embeddings), len(told.reference)
    if sizes != (batch, reference):
        raise InputError(
            f"the selection was made for {sizes[0]} embeddings and {sizes[1]} references, "
            f"and there are {batch} and {reference}"
        )


def all_triplets(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Every (anchor, positive, negative) of a batch, whatever was selected."""
    return dataclasses.replace(batch, selection=None).triplets()


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


#: From how many triplets on it is said that somebody made them: 100 MB of indices.
MANY = 2**22


def warn_if_many(triplets: int) -> None:
    """Say that so many triplets were made, where there are many."""
    if triplets > MANY:
        warnings.warn(
            f"{triplets:,} triplets are made one by one; a plain triplet loss on the miner's distance, reduced by "
            "mean, sum or avg_non_zero, needs none",
            NearfarWarning,
            stacklevel=3,
        )


@dataclass(frozen=True, slots=True, eq=False)
class TripletRule(Selection):
    """For each positive pair (a, p) the negatives n of a with ``d(a, n) − d(a, p)`` in ``(lower, upper]``.

    It covers all, hard, semi-hard and easy mining without a triplet in memory. A loss on the same distance
    applies the rule while it sums; any other asks for :meth:`indices`. Ties are decided by the same
    floating-point expression in both: ``gap = d(a, n) − d(a, p)``, then ``lower < gap`` and ``gap <= upper``.

    Attributes
    ----------
    batch
        The batch the rule is about.
    distance
        What d is; for a similarity s, ``d = −s``.
    lower, upper
        The ends of the interval, in units of the distance.
    """

    batch: Batch
    distance: Distance
    lower: float = -float("inf")
    upper: float = float("inf")

    def check(self, batch: int, reference: int) -> None:
        check_sizes(self.batch, batch, reference)

    @torch.no_grad()
    def indices(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.lower == -float("inf") and self.upper == float("inf"):
            triplets = all_triplets(self.batch)
            warn_if_many(len(triplets[0]))
            return triplets
        with full_precision(self.batch.embeddings):
            matrix = distance_matrix(self.distance, self.batch)
        anchors, positives = torch.where(self.batch.positive_mask())
        negative = self.batch.negative_mask()
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        # By slices of the positive pairs: a table of every pair by every negative may not fit.
        step = max(1, 2**24 // max(1, matrix.shape[1]))
        for start in range(0, len(anchors), step):
            a, p = anchors[start : start + step], positives[start : start + step]
            gap = matrix[a] - matrix[a, p][:, None]
            pair, n = torch.where(self.holds(gap) & negative[a])
            found.append((a[pair], p[pair], n))
        if not found:
            return anchors, positives, anchors
        a, p, n = (torch.cat(parts) for parts in zip(*found, strict=True))
        warn_if_many(len(a))
        return a, p, n

    def selected(self, d_ap: Tensor, d_an: Tensor, positives: Tensor) -> Tensor:
        """Which references are a negative of each of t positive pairs, of those that are one by label.

        Parameters
        ----------
        d_ap, d_an
            (t, 1) and (t, m) distances of the pairs, and of their anchors to all references.
        positives
            (t,) which references the positives are.

        Returns
        -------
        Tensor
            (t, m) boolean.
        """
        return self.holds(d_an - d_ap)

    def holds(self, gap: Tensor) -> Tensor:
        """Whether a triplet with this ``d(a, n) − d(a, p)`` is selected."""
        # Not a comparison that is false of NaN: what is not a number must show in the loss.
        return ~((gap <= self.lower) | (gap > self.upper))


def distance_matrix(distance: Distance, batch: Batch) -> Tensor:
    """(n, m) distances of a batch to its reference, small for near: a similarity is negated."""
    matrix: Tensor = distance(batch.embeddings) if batch.is_self else distance(batch.embeddings, batch.reference)
    return -matrix if distance.is_inverted else matrix
