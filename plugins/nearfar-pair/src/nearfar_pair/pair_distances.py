"""Distances of pairs given one by one, without the matrix of all distances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.distances import Distance, Euclidean
from nearfar.nn.precision import in_full_precision
from nearfar_pair.again import again
from nearfar_pair.row_distance import Gradients, RowDistance, row_distance
from nearfar_pair.sides import SMALL

__all__ = ["both_distances", "pair_distances"]

# Elements of the embeddings of a few pairs, or of a few rows: as of a pass over rows.
CPU_ELEMENTS, GPU_ELEMENTS = 2**17, 2**22
#: So many entries of the matrix are computed in the time that one pair is gathered in.
ENTRIES_OF_A_PAIR = 16


def pair_distances(distance: Any, query: Tensor, reference: Tensor | None, i: Tensor, j: Tensor) -> Tensor:
    """(t,) the distances of pairs (i, j) of a query and a reference, small for near; differentiable.

    Parameters
    ----------
    distance
        What d is; a similarity is negated. One that is not nearfar's own has its whole matrix made.
    query, reference
        (n, d) and (m, d) embeddings; None where the query is compared with itself.
    i, j
        (t,) int64 each.
    """
    m = len(query if reference is None else reference)
    # Of a small batch to the bit what a pass over the whole matrix has, where products cancel.
    if len(query) * m <= SMALL or not row_distance(distance) or torch.compiler.is_compiling():
        matrix: Tensor = distance(query) if reference is None else distance(query, reference)
        found = matrix[i, j]
        return -found if distance.is_inverted else found
    query = distance.maybe_normalize(query)
    reference = None if reference is None else distance.maybe_normalize(reference)
    way = _ByRow if len(i) * ENTRIES_OF_A_PAIR > len(query) * m else _OneByOne
    pairs: Tensor = way.apply(distance, query, reference, i, j)
    return pairs


def both_distances(
    distance: Any, query: Tensor, reference: Tensor | None, *pairs: tuple[Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Those of several lists of pairs, at once; as :func:`pair_distances`."""
    i, j = (torch.cat(column) for column in zip(*pairs, strict=True))
    return torch.split(pair_distances(distance, query, reference, i, j), [len(a) for a, _ in pairs])


class _OneByOne(torch.autograd.Function):
    """The two embeddings of each pair are fetched, a few pairs at a time."""

    @staticmethod
    def forward(ctx: Any, distance: Distance, query: Tensor, reference: Tensor | None, i: Tensor, j: Tensor) -> Tensor:
        ctx.distance = distance
        other = query if reference is None else reference
        parts = [_fetched(distance, query, other, i[some], j[some]) for some in _slices(len(i), query)]
        found = torch.cat(parts) if parts else query.new_empty(0)
        ctx.save_for_backward(query, reference, i, j, found)
        return found

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        query, reference, i, j, found = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(ctx.distance, (query, reference, i, j), by)
        distance: Distance = ctx.distance
        gradients = Gradients(query, query if reference is None else reference)
        by = _by_square(distance, by, found)
        for some in _slices(len(i), query):
            a, b, weight = i[some], j[some], by[some, None]
            first, second = query.index_select(0, a), (query if reference is None else reference).index_select(0, b)
            if distance.is_inverted:
                gradients.query.index_add_(0, a, second.mul_(weight), alpha=-1)
                gradients.reference.index_add_(0, b, first.mul_(weight), alpha=-1)
            else:
                apart = first.sub_(second).mul_(weight)
                gradients.query.index_add_(0, a, apart)
                gradients.reference.index_add_(0, b, apart, alpha=-1)
        return None, *gradients.finished(), None, None


class _ByRow(torch.autograd.Function):
    """A few rows of the matrix at a time, of which the pairs are taken: for many pairs."""

    @staticmethod
    def forward(ctx: Any, distance: Distance, query: Tensor, reference: Tensor | None, i: Tensor, j: Tensor) -> Tensor:
        ctx.distance = distance
        rows = RowDistance(distance, query, query if reference is None else reference)
        found = query.new_empty(len(i))
        for anchors, some, entries in _by_row(query, query if reference is None else reference, i, j):
            d = rows.rows(anchors, query.new_empty(anchors.stop - anchors.start, rows.width))
            found[some] = d.view(-1).index_select(0, entries)
        if reference is None and not distance.is_inverted:  # a row says nothing of an anchor's distance to itself
            found.masked_fill_(i == j, 0)
        ctx.save_for_backward(query, reference, i, j, found)
        return found

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        query, reference, i, j, found = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(ctx.distance, (query, reference, i, j), by)
        distance: Distance = ctx.distance
        rows = RowDistance(distance, query, query if reference is None else reference)
        gradients = rows.gradients()
        by = _by_square(distance, by, found)
        for anchors, some, entries in _by_row(query, query if reference is None else reference, i, j):
            weight = query.new_zeros(anchors.stop - anchors.start, rows.width)
            weight.view(-1).index_add_(0, entries, by[some])
            rows.pull_weight(anchors, weight, gradients)
        return None, *gradients.finished(), None, None


def _fetched(distance: Distance, query: Tensor, reference: Tensor, i: Tensor, j: Tensor) -> Tensor:
    found = distance.pairwise(query.index_select(0, i), reference.index_select(0, j))
    return -found if distance.is_inverted else found


def _by_square(distance: Distance, by: Tensor, found: Tensor) -> Tensor:
    """The gradient by half the squared distance, or by a similarity as it is; of two points that are one, nothing."""
    if isinstance(distance, Euclidean):
        return (by / found).masked_fill_(found == 0, 0)
    return by if distance.is_inverted else 2 * by


def _slices(count: int, query: Tensor) -> Iterator[slice]:
    elements = CPU_ELEMENTS if query.device.type == "cpu" else GPU_ELEMENTS
    step = max(1, elements // max(1, query.shape[1]))
    return (slice(start, start + step) for start in range(0, count, step))


def _by_row(query: Tensor, reference: Tensor, i: Tensor, j: Tensor) -> Iterator[tuple[slice, Any, Tensor]]:
    """Rows of the matrix, which pairs lie in them, and at which entry of these rows."""
    n, m = len(query), len(reference)
    elements = CPU_ELEMENTS if query.device.type == "cpu" else GPU_ELEMENTS
    step = max(1, elements // m)
    # What is by anchor already, as most selections are, needs no sorting, which would cost more than the distances.
    order = None if bool((i[1:] >= i[:-1]).all()) else i.argsort()
    ordered = i if order is None else i[order]
    starts = torch.arange(0, n + step, step, device=i.device)
    bounds = torch.searchsorted(ordered, starts).tolist()
    for start, low, high in zip(range(0, n, step), bounds, bounds[1:], strict=False):
        if low == high:
            continue
        some: Any = slice(low, high) if order is None else order[low:high]
        yield slice(start, min(start + step, n)), some, (i[some] - start) * m + j[some]


def _again(
    distance: Distance, given: tuple[Tensor, Tensor | None, Tensor, Tensor], by: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated once more, with every pair's embeddings at once."""

    def found(query: Tensor, reference: Tensor | None, i: Tensor, j: Tensor) -> list[Tensor]:
        return [_fetched(distance, query, query if reference is None else reference, i, j)]

    return None, *again(found, given, [by])
