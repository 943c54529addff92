"""What a positive pair costs beside all negative pairs of other classes, a few rows of distances at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.precision import in_full_precision
from nearfar_pair.again import again
from nearfar_pair.chosen import chosen_sides
from nearfar_pair.ends import turned
from nearfar_pair.few_rows import slices
from nearfar_pair.places import Places
from nearfar_pair.row_distance import Gradients, RowDistance
from nearfar_pair.sides import Rows, Sides

__all__ = ["Quadruples"]


class Quadruples:
    """Means over the negative pairs of a batch, with both ends out of a class, that are nearer than a bound.

    Of a bound t and a class c it is the mean of ``t − v`` over the distances v < t, 0 of none. Each distance goes into
    sums between two of all bounds, and between two of those of the class of its anchor, from which what has an end in
    the class is taken off.

    Parameters
    ----------
    batch
        With class ids; its selection says which negative pairs there are, each once.
    distance
        One of nearfar's own.
    whole
        What gives the same of bounds, classes and the matrix of distances: for second derivatives.
    """

    def __init__(self, batch: Batch, distance: Any, whole: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self.distance, self.whole = distance, whole
        self.sides = chosen_sides(batch, distance)
        self.labels = batch.class_ids("Quadruples")
        # The negative pairs of a batch are the same the other way round.
        self.other = None if batch.is_self and batch.selection is None else chosen_sides(turned(batch), distance)
        self.query = distance.maybe_normalize(batch.embeddings)
        self.reference = None if batch.is_self else distance.maybe_normalize(batch.reference)

    def positives(self) -> tuple[Tensor, Tensor]:
        """The positive pairs that there are, by anchor."""
        if not self.sides.has_rule:
            index, valid = self.sides.table(slice(0, self.sides.shape[0]))
            a, place = torch.where(valid)
            return a, index[a, place]
        found = []
        for rows, _ in _rows(self.sides, self.distance, self.query.detach(), _detached(self.reference)):
            a, place = torch.where(rows.valid)
            found.append((a + rows.anchors.start, rows.positives[a, place]))
        a, p = (torch.cat(column) for column in zip(*found, strict=True))
        return a, p

    def costs(self, bounds: Tensor, own: Tensor) -> Tensor:
        """(P,) the means for bounds (P,) and the class ids (P,) that go with them; differentiable."""
        if not len(bounds):
            return bounds
        found: Tensor = _Costs.apply(self, own, bounds, self.query, self.reference)
        return found

    def differentiable(self, own: Tensor, bounds: Tensor, query: Tensor, reference: Tensor | None) -> list[Tensor]:
        """The same means from the whole matrix: for second derivatives."""
        matrix = self.distance.matrix(query, query if reference is None else reference)
        return [self.whole(bounds, own, -matrix if self.distance.is_inverted else matrix)]


@dataclass(frozen=True, slots=True, eq=False)
class _Bounds:
    """Bounds in the order of all, and in that of each class.

    Attributes
    ----------
    places, place
        All different bounds, and which of them each bound is.
    table, at
        (classes, w) those of each class in ascending order, infinite behind the last; and where in the table flattened
        each bound is.
    classes
        The ids, in ascending order.
    """

    places: Places
    place: Tensor
    table: Tensor
    at: Tensor
    classes: Tensor

    @classmethod
    def of(cls, bounds: Tensor, own: Tensor) -> _Bounds:
        among, place = torch.unique(bounds, return_inverse=True)
        classes, class_of, sizes = torch.unique(own, return_inverse=True, return_counts=True)
        order = (class_of * len(among) + place).argsort()
        width = int(sizes.max())
        rank = torch.arange(len(own), device=own.device) - (sizes.cumsum(0) - sizes)[class_of[order]]
        at = torch.empty_like(order)
        at[order] = class_of[order] * width + rank
        table = bounds.new_full((len(classes) * width,), torch.inf).index_copy(0, at, bounds)
        return cls(Places(among), place, table.view(-1, width), at, classes)

    def of_rows(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(r,) the row of the table of each label, and whether it has one."""
        row = torch.searchsorted(self.classes, labels).clamp_max_(len(self.classes) - 1)
        return row, self.classes[row] == labels


class _Sums:
    """Numbers and sums of distances by the bounds that they lie between: of all, and of their anchors' classes."""

    def __init__(self, bounds: _Bounds) -> None:
        self._bounds = bounds
        zeros = bounds.table.new_zeros
        self.every = zeros(2, len(bounds.places) + 1, dtype=torch.float64)
        classes, width = bounds.table.shape
        self.of_class = zeros(2, classes, width + 1, dtype=torch.float64)

    def add_every(self, d: Tensor) -> None:
        """Distances (r, m), by all bounds."""
        place = self._bounds.places.of(d).flatten()
        value = d.flatten().double()
        self.every[0] += torch.bincount(place, minlength=self.every.shape[1])
        self.every[1].index_add_(0, place, value)

    def add_of_class(self, d: Tensor, labels: Tensor) -> None:
        """Distances (r, m) of anchors of these classes (r,), by the bounds of each one's own."""
        row, has = self._bounds.of_rows(labels)
        place = torch.searchsorted(self._bounds.table[row], d, right=True)
        width = self.of_class.shape[2]
        for total, value in zip(self.of_class, (torch.ones_like(d, dtype=torch.float64), d.double()), strict=True):
            by_row = d.new_zeros(len(d), width, dtype=torch.float64).scatter_add_(1, place, value)
            total.index_add_(0, row, by_row * has[:, None])

    def totals(self) -> Tensor:
        """(2, P) how many distances below each bound have no end in its class, and their sum."""
        bounds = self._bounds
        every = self.every.cumsum(1)[:, bounds.place]
        return every - self.of_class.cumsum(2)[:, :, :-1].flatten(1)[:, bounds.at]


class _Costs(torch.autograd.Function):
    """The means; the backward pass computes the distances once more."""

    @staticmethod
    def forward(ctx: Any, work: Quadruples, own: Tensor, t: Tensor, query: Tensor, reference: Tensor | None) -> Tensor:
        bounds = _Bounds.of(t, own)
        sums = _Sums(bounds)
        # Where the other way is the same, what has one end in a class stands for what has the other.
        for rows, _ in _rows(work.sides, work.distance, query, reference):
            sums.add_every(rows.d_an)
            sums.add_of_class(rows.d_an, work.labels[0][rows.anchors])
        if work.other is None:
            sums.of_class *= 2
        else:
            for rows, _ in _rows(work.other, work.distance, *_exchanged(query, reference)):
                sums.add_of_class(rows.d_an, work.labels[1][rows.anchors])
        count, total = sums.totals()
        ctx.work, ctx.bounds = work, bounds
        ctx.save_for_backward(count, own, t, query, reference)
        return torch.where(count > 0, t - (total / count.clamp_min(1)).to(t), 0)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        count, own, t, query, reference = ctx.saved_tensors
        work, bounds = ctx.work, ctx.bounds
        if torch.is_grad_enabled():
            return None, *again(work.differentiable, (own, t, query, reference), [by])
        by = torch.where(count > 0, by, 0)
        each = -by / count.clamp_min(1).to(by)
        # Each distance has the share of all bounds above it.
        every = each.new_zeros(len(bounds.places) + 1).index_add(0, bounds.place, each).flip(0).cumsum(0).flip(0)
        table = each.new_zeros(bounds.table.numel()).index_add(0, bounds.at, each).view_as(bounds.table)
        of_class = torch.nn.functional.pad(table.flip(1).cumsum(1).flip(1), (0, 1))
        twice = 2 if work.other is None else 1
        gradients: Gradients | None = None
        for rows, distance in _rows(work.sides, work.distance, query, reference):
            gradients = gradients or distance.gradients()
            weight = every.take(bounds.places.of(rows.d_an))
            weight -= twice * _shares(bounds, of_class, rows.d_an, work.labels[0][rows.anchors])
            distance.pull(rows, None, weight, gradients)
        if gradients is None:
            return None, None, by, None, None
        to_query, to_reference = gradients.finished()
        if work.other is not None:
            gradients = None
            for rows, distance in _rows(work.other, work.distance, *_exchanged(query, reference)):
                gradients = gradients or distance.gradients()
                weight = _shares(bounds, of_class, rows.d_an, work.labels[1][rows.anchors]).neg_()
                distance.pull(rows, None, weight, gradients)
            assert gradients is not None  # of both ends there are as many
            of_first, of_second = gradients.finished()
            if to_reference is None or of_second is None:
                to_query = to_query + of_first
            else:
                to_query, to_reference = to_query + of_second, to_reference + of_first
        return None, None, by, to_query, to_reference


def _exchanged(query: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The references for the query; of a batch with itself it is the same."""
    return (query, None) if reference is None else (reference, query)


def _shares(bounds: _Bounds, of_class: Tensor, d: Tensor, labels: Tensor) -> Tensor:
    """(r, m) the sums of the shares of the bounds of the anchors' classes that are above each distance."""
    row, has = bounds.of_rows(labels)
    place = torch.searchsorted(bounds.table[row], d, right=True)
    return (of_class[row] * has[:, None]).gather(1, place)


def _detached(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach()


def _rows(sides: Sides, metric: Any, query: Tensor, reference: Tensor | None) -> Iterator[tuple[Rows, RowDistance]]:
    """Rows of all anchors, a few after another in the same memory."""
    other = query if reference is None else reference
    if not len(other):
        return
    distance = RowDistance(metric, query, other)
    buffer: Tensor | None = None
    for anchors in slices(sides):
        size = anchors.stop - anchors.start
        buffer = query.new_empty(size, len(other)) if buffer is None else buffer
        yield sides.rows(distance.rows(anchors, buffer[:size]), anchors, in_place=True), distance
