"""Distances of a whole small batch in two parts, with the gradient of both in one."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.distances import Distance
from nearfar.nn.precision import in_full_precision
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
        d = rows.whole()
        ctx.distance, ctx.masks, ctx.rows = distance, masks, rows
        ctx.root = d if rows.has_root else None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, reference)
        no_positive, no_negative = masks
        d_ap = d.masked_fill(no_positive, -FAR)
        return d_ap, d.masked_fill(no_negative, FAR) if rows.has_root else d.masked_fill_(no_negative, FAR)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by_ap: Tensor | None, by_an: Tensor | None) -> tuple[Tensor | None, ...]:
        query, reference = ctx.saved_tensors
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
        to_query, to_reference = (*ctx.rows.pulled(weight, ctx.root), None)[:2]
        return None, None, to_query, to_reference


def _matrix(distance: Distance, query: Tensor, reference: Tensor | None) -> list[Tensor]:
    return [distance.matrix(query, query if reference is None else reference)]
