"""The cross entropy of classes by those of their proxies that are nearest to a sample, a block of classes at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.closed_form import refuse_second_derivative
from nearfar.nn.memory import gradient_like
from nearfar.nn.precision import in_full_precision
from nearfar.nn.products import add_product, product
from nearfar_proxy.blocks import LOG2_E, add_powers, blocks, held, own_columns
from nearfar_proxy.directions import directions, through_directions
from nearfar_proxy.ranks import Share
from nearfar_proxy.selecting import kth_greatest

__all__ = ["nearest_cross_entropy"]


def nearest_cross_entropy(
    units: Tensor, weight: Tensor, labels: Tensor, scale: float, of_others: int, share: Share | None = None
) -> Tensor:
    """The loss of each sample, (n,), whose logits are sums of the cosines to the proxies that it keeps.

    Parameters
    ----------
    units
        (n, d) embeddings of length one.
    weight
        (c, K, d) proxies of any length, of this rank's classes where there are ranks.
    labels
        (n,) class ids.
    scale
        What sums are multiplied with.
    of_others
        How many proxies of other classes a sample keeps, the nearest, beside all of its own class. A class of which it
        keeps none has no part in its loss.
    share
        Which classes these are.
    """
    labels = labels if share is None else labels - share.start
    if not torch.is_grad_enabled():
        units, weight = units.detach(), weight.detach()
    values: Tensor = _CrossEntropy.apply(units, weight, labels, scale, of_others, share)
    return values


def _cosines(units: Tensor, centers: Tensor) -> Tensor:
    """(n, c, K) of unit vectors (n, d) and (c, K, d)."""
    return product(units, centers.flatten(0, 1).T).view(len(units), len(centers), centers.shape[1])


def _fill_own(values: Tensor, labels: Tensor, block: slice, value: float) -> Tensor:
    """Write a value to what (n, c, K) has of a sample and the proxies of its own class, where the block has this."""
    column, inside = own_columns(labels, block)
    at = column[..., None].expand(-1, 1, values.shape[2])
    return values.scatter_(1, at, torch.where(inside[..., None], value, values.gather(1, at)))


def _least(units: Tensor, weight: Tensor, inverses: Tensor, labels: Tensor, number: int, share: Share | None) -> Tensor:
    """(n,) the least cosine to a proxy of another class that a sample keeps."""
    n, each = len(units), weight.shape[1]
    classes = len(weight) if share is None else share.num_classes
    if number >= (classes - 1) * each:
        return units.new_full((n,), -torch.inf)
    if not number:
        return units.new_full((n,), torch.inf)

    def cosines() -> Iterator[Tensor]:
        for block in blocks(n * each, weight):
            found = _cosines(units, weight[block] * inverses[block])
            yield _fill_own(found, labels, block, -torch.inf).flatten(1)

    if number * n > held(units):
        return kth_greatest(cosines, n, number, units, share)
    best = units.new_empty(n, 0)
    for found in cosines():
        best = torch.cat([best, found], 1)
        best = best.topk(min(number, best.shape[1]), 1, sorted=False).values
    if share is not None:
        # As many columns on every rank, so that rows of ranks are of one shape.
        best = torch.nn.functional.pad(best, (0, number - best.shape[1]), value=-torch.inf)
        best = share.rows(best.T.contiguous(), [number] * share.world).T
        best = best.topk(number, 1, sorted=False).values
    return best.amin(1) if n else units.new_empty(0)


class _CrossEntropy(torch.autograd.Function):
    """Cosines are computed again for the gradient: their number is batch × proxies."""

    @staticmethod
    def forward(
        ctx: Any, units: Tensor, weight: Tensor, labels: Tensor, scale: float, of_others: int, share: Share | None
    ) -> Tensor:
        n, inverses = len(units), weight.new_empty(*weight.shape[:2], 1)
        for block in blocks(n * weight.shape[1], weight):
            directions(weight[block], inverses[block])
        # From here on directions have the same bits everywhere, so that what lies at the limit is not lost to rounding.
        least = _least(units, weight, inverses, labels, of_others, share)
        top, total, own = units.new_full((n,), -torch.inf), units.new_zeros(n), units.new_zeros(n)
        for block in blocks(n * weight.shape[1], weight):
            logits, _ = _kept(units, weight[block] * inverses[block], labels, block, least, scale * LOG2_E)
            column, inside = own_columns(labels, block)
            own = torch.where(inside, logits.gather(1, column), own[:, None])[:, 0]
            top, total = add_powers(top, total, logits, 1)
        if share is not None:
            top, total = share.powers(top, total)
            share.sum(own)
        lse = top + total.log2()
        ctx.save_for_backward(units, weight, inverses, labels, least, lse)
        ctx.scale = scale
        return (lse - own) / LOG2_E

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        units, weight, inverses, labels, least, lse = ctx.saved_tensors
        by_units = torch.zeros_like(units) if ctx.needs_input_grad[0] else None
        by_weight = gradient_like(weight) if ctx.needs_input_grad[1] else None
        for block in blocks(len(units) * weight.shape[1], weight):
            centers = weight[block] * inverses[block]
            logits, keeps = _kept(units, centers, labels, block, least, ctx.scale * LOG2_E)
            column, inside = own_columns(labels, block)
            by_logits = logits.sub_(lse[:, None]).exp2_()
            by_logits.scatter_add_(1, column, torch.where(inside, -1.0, 0.0).to(by_logits))
            by_logits *= ctx.scale * grad[:, None]
            by_cosines = (keeps * by_logits[..., None]).flatten(1)
            rows = centers.flatten(0, 1)
            if by_units is not None:
                add_product(by_units, by_cosines, rows)
            if by_weight is not None:
                by_centers = product(by_cosines.T, units).reshape(centers.shape)
                through_directions(by_centers, centers, inverses[block], by_weight[block])
        return by_units, by_weight, None, None, None, None


def _kept(
    units: Tensor, centers: Tensor, labels: Tensor, block: slice, least: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Of a block of classes the logits (n, c), −inf where no proxy is kept, and which are, (n, c, K)."""
    cosines = _cosines(units, centers)
    keeps = _fill_own(cosines >= least[:, None, None], labels, block, True)
    logits = cosines.masked_fill_(~keeps, 0).sum(2).mul_(scale).masked_fill_(~keeps.any(2), -torch.inf)
    return logits, keeps
