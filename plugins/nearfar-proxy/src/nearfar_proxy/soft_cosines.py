"""The cross entropy of classes with one centre or several, a block of classes at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.closed_form import refuse_second_derivative
from nearfar.nn.vectors import through_unit, unit
from nearfar_proxy.blocks import blocks, own_columns
from nearfar_proxy.ranks import Share

__all__ = ["SoftCosines", "soft_cross_entropy"]


@dataclass(frozen=True, slots=True)
class SoftCosines:
    r"""Logits :math:`\lambda s_{ij}` of the mean of the cosines to a class's centres, in which the nearest counts most.

    .. math:: s_{ij} = \sum_k a_{ijk} \cos(x_i, w_{jk}), \qquad a_{ijk} \propto e^{\cos(x_i, w_{jk}) / \gamma}

    Attributes
    ----------
    scale, gamma
        λ and γ.
    margin
        What is taken off a sample's cosine to its own class.
    others
        Whether the sum of a sample's exponentials leaves out its own class.
    """

    scale: float
    gamma: float = 1.0
    margin: float = 0.0
    others: bool = False

    def shares(self, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """a, (K, n, c), and s, (n, c), of cosines (K, n, c): centres first, so that whole rows are summed."""
        if len(cosines) == 1:
            return torch.ones_like(cosines[:, :1, :1]), cosines[0]
        weights = cosines.sub(cosines.amax(0)).div_(self.gamma).exp_()
        weights /= weights.sum(0)
        return weights, (weights * cosines).sum(0)

    def logits(self, cosines: Tensor) -> Tensor:
        return self.shares(cosines)[1] * self.scale


def soft_cross_entropy(
    units: Tensor, weight: Tensor, labels: Tensor, soft: SoftCosines, tau: float = 0.0, share: Share | None = None
) -> tuple[Tensor, Tensor]:
    """The loss of each sample, (n,), and what the centres of each class cost for being apart, (c,).

    Parameters
    ----------
    units
        (n, d) embeddings of length one.
    weight
        (c, K, d) centres of any length.
    labels
        (n,) class ids.
    soft
        What logits are.
    tau
        What the mean distance of a class's centres, over their pairs both ways, is multiplied with, and halved.
    share
        Which classes these are, where ranks have different ones.
    """
    if not torch.is_grad_enabled():
        units, weight = units.detach(), weight.detach()
    found: tuple[Tensor, Tensor] = _SoftCrossEntropy.apply(units, weight, labels, soft, tau, share)
    return found


class _SoftCrossEntropy(torch.autograd.Function):
    """Cosines are computed again for the gradient: their number is batch × classes × centres."""

    @staticmethod
    def forward(
        ctx: Any, units: Tensor, weight: Tensor, labels: Tensor, soft: SoftCosines, tau: float, share: Share | None
    ) -> tuple[Tensor, Tensor]:
        labels = labels if share is None else labels - share.start
        n, (classes, k, _) = len(units), weight.shape
        top = units.new_full((n,), -torch.inf)
        total, own = units.new_zeros(n), units.new_zeros(n)
        apart, lengths = weight.new_empty(classes), weight.new_empty(classes, k)
        for block in blocks(n * k, weight):
            centers, lengths[block] = unit(weight[block], -1)
            apart[block] = spread(centers) * tau if k > 1 else 0
            logits = soft.logits(units @ centers.permute(1, 2, 0))
            column, inside = own_columns(labels, block)
            at = logits.gather(1, column) - soft.scale * soft.margin
            summed = torch.full_like(at, -torch.inf) if soft.others else at
            logits.scatter_(1, column, torch.where(inside, summed, logits.gather(1, column)))
            own = torch.where(inside[:, 0], at[:, 0], own)
            # Of a block of the own class alone there is nothing to sum: −inf less itself were not a number.
            higher = torch.maximum(top, logits.amax(1)).clamp_min_(torch.finfo(top.dtype).min)
            total = total * (top - higher).exp() + logits.sub_(higher[:, None]).exp_().sum(1)
            top = higher
        if share is not None:
            highest = share.most(top.clone())
            # Of a rank without classes the greatest is −inf, and its sum is 0.
            total, top = share.sum(torch.where(total > 0, total * (top - highest).exp(), 0)), highest
            share.sum(own)
        lse = top + total.log()
        ctx.save_for_backward(units, weight, lengths, labels, lse)
        ctx.soft, ctx.tau = soft, tau
        return lse - own, apart

    @staticmethod
    def backward(ctx: Any, grad: Tensor, by_apart: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        units, weight, lengths, labels, lse = ctx.saved_tensors
        by_units = torch.zeros_like(units) if ctx.needs_input_grad[0] else None
        by_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for block in blocks(len(units) * weight.shape[1], weight):
            length = lengths[block]
            centers = weight[block] * torch.where(length > 0, 1 / length, 0)[..., None]
            by_cosines = _by_cosines(ctx.soft, units @ centers.permute(1, 2, 0), labels, block, lse, grad)
            if by_units is not None:
                for by, some in zip(by_cosines, centers.unbind(1), strict=True):
                    by_units.addmm_(by, some)
            if by_weight is not None:
                by_centers = (by_cosines.transpose(1, 2) @ units).transpose(0, 1)
                if ctx.tau and centers.shape[1] > 1:
                    by_centers = by_centers + by_spread(centers) * (ctx.tau * by_apart[block])[:, None, None]
                by_weight[block] = through_unit(by_centers, centers, length, -1)
        return by_units, by_weight, None, None, None, None


def _by_cosines(soft: SoftCosines, cosines: Tensor, labels: Tensor, block: slice, lse: Tensor, grad: Tensor) -> Tensor:
    """The gradient by the cosines (K, n, c) of a block of classes."""
    weights, mean = soft.shares(cosines)
    column, inside = own_columns(labels, block)
    logits = mean * soft.scale
    less = torch.inf if soft.others else soft.scale * soft.margin
    logits.scatter_add_(1, column, torch.where(inside, -less, 0.0).to(logits))
    by_mean = logits.sub_(lse[:, None]).exp_()
    by_mean.scatter_add_(1, column, torch.where(inside, -1.0, 0.0).to(by_mean))
    by_mean *= soft.scale * grad[:, None]
    if len(cosines) == 1:
        return by_mean[None]
    return cosines.sub_(mean).div_(soft.gamma).add_(1).mul_(weights).mul_(by_mean)


def spread(centers: Tensor) -> Tensor:
    r"""Half the mean distance of the unit vectors of each class, (c,), of (c, K, d): :math:`\sum_{t<s} / K(K-1)`."""
    k = centers.shape[1]
    return _distances(centers).sum((1, 2)) / (2 * max(k * (k - 1), 1))


def by_spread(centers: Tensor) -> Tensor:
    """The gradient of :func:`spread` by the centres, (c, K, d); none between two that are the same."""
    k = centers.shape[1]
    distances = _distances(centers)
    inverse = torch.where(distances > 0, 1 / distances, 0)
    # Σ_s (u_t − u_s) / d_ts, each pair counted from both sides.
    return (inverse.sum(2, keepdim=True) * centers - inverse @ centers) / max(k * (k - 1), 1)


def _distances(centers: Tensor) -> Tensor:
    """(c, K, K) the distances of unit vectors; 0 where they are too near for their cosine to tell."""
    squares = 2 - 2 * (centers @ centers.transpose(1, 2))
    least = 8 * torch.finfo(centers.dtype).eps
    return torch.where(squares > least, squares, 0).sqrt_()
