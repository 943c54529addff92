"""Distances of a whole small batch in two parts, with the gradient of both in one."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.distances import Distance, Euclidean
from nearfar_pair.again import again
from nearfar_pair.row_distance import RowDistance
from nearfar_pair.sides import FAR

__all__ = ["split"]


def split(
    distance: Distance, query: Tensor, reference: Tensor | None, masks: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """(n, m) distances with -FAR for what is no positive, and with FAR for what is no negative; differentiable.

    In few steps: of a small batch calling torch costs more than its work.

    Parameters
    ----------
    distance
        One of nearfar's own.
    query, reference
        (n, d) and (m, d), m at least 1, normalised already where that is asked for; None where the query is compared
        with itself.
    masks
        (n, m) boolean: what is no positive, and what is no negative.
    """
    found: tuple[Tensor, Tensor] = _Split.apply(distance, masks, query, reference)
    return found


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, distance: Distance, masks: tuple[Tensor, Tensor], query: Tensor, reference: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        other = query if reference is None else reference
        rows = RowDistance(distance, query, other)
        d = rows.rows(slice(0, len(query)), query.new_empty(len(query), len(other)))
        ctx.distance, ctx.masks = distance, masks
        ctx.set_materialize_grads(False)
        no_positive, no_negative = masks
        d_ap = d.masked_fill(no_positive, -FAR)
        if isinstance(distance, Euclidean):
            ctx.save_for_backward(query, reference, d)
            return d_ap, d.masked_fill(no_negative, FAR)
        ctx.save_for_backward(query, reference)
        return d_ap, d.masked_fill_(no_negative, FAR)

    @staticmethod
    def backward(ctx: Any, by_ap: Tensor | None, by_an: Tensor | None) -> tuple[Tensor | None, ...]:
        query, reference, *root = ctx.saved_tensors
        weight: Tensor | None = None
        for by, mask in zip((by_ap, by_an), ctx.masks, strict=True):
            if by is not None:
                by = by.masked_fill(mask, 0)
                weight = by if weight is None else weight + by
        if weight is None:
            return (None,) * 4
        if torch.is_grad_enabled():
            by = -weight if ctx.distance.is_inverted else weight
            return None, None, *again(functools.partial(_matrix, ctx.distance), (query, reference), [by])
        if root:
            (d,) = root
            weight /= d
            if not bool(d.amin() > 0):  # two points that are one pass nothing
                weight.masked_fill_(d == 0, 0)
        factor = -1 if ctx.distance.is_inverted or root else -2
        if reference is None:
            # Both ends of a pair are of the batch, so that one product does.
            weight = weight + weight.T
            return None, None, _pulled(ctx.distance, weight, query, query, factor), None
        to_query = _pulled(ctx.distance, weight, query, reference, factor)
        return None, None, to_query, _pulled(ctx.distance, weight.T, reference, query, factor)


def _pulled(distance: Distance, weight: Tensor, points: Tensor, others: Tensor, factor: int) -> Tensor:
    """The gradient of points from that, (n, m), by their distances to others."""
    if distance.is_inverted:
        return torch.mm(weight, others).neg_()
    return torch.addmm(points * weight.sum(1, keepdim=True), weight, others, beta=-factor, alpha=factor)


def _matrix(distance: Distance, query: Tensor, reference: Tensor | None) -> list[Tensor]:
    return [distance.matrix(query, query if reference is None else reference)]
