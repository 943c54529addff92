"""The cross entropy of classes with one centre or several, a block of classes at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.nn.closed_form import refuse_second_derivative
from nearfar.nn.memory import gradient_like
from nearfar.nn.precision import in_full_precision
from nearfar.nn.products import add_product, product
from nearfar_proxy.blocks import LOG2_E, add_powers, blocks, own_columns
from nearfar_proxy.directions import directions, through_directions
from nearfar_proxy.ranks import Share
from nearfar_proxy.scaled_cosines import STEEPEST

__all__ = ["SoftCosines", "soft_cross_entropy"]

#: A block of classes takes the room of about so many arrays of its cosines' size: these, their weights, what products
#: copy, centres and their gradient. So blocks are small: those of twice the size are hardly faster.
HELD = 6
#: The largest cosine over γ, to base 2, whose powers are far from either end of float32.
MILD = 60.0


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

    def logits(self, cosines: Tensor) -> Tensor:
        """(n, c) of cosines (n, c, K)."""
        weights = (cosines / self.gamma).softmax(2)
        return (weights * cosines).sum(2) * self.scale

    @property
    def steep(self) -> float:
        """What cosines are multiplied with to be exponents of 2."""
        return LOG2_E / self.gamma

    def is_mild(self) -> bool:
        """Whether exponentials of logits and their sums stay in the range of float32, with no greatest taken off."""
        return self.scale * (1 + self.margin) <= STEEPEST

    def mix(self, scaled: Tensor, centers: Tensor) -> _Mixed:
        """What a block of unit centres (c, K, d) is to ``scaled`` (d, n), unit vectors times ``steep``."""
        c, k, _ = centers.shape
        cosines = product(centers.flatten(0, 1), scaled).view(c, k, -1)
        if k == 1:
            one = cosines.new_ones(1, 1, 1)
            return _Mixed(cosines, one, one[0], cosines[:, 0])
        weights = cosines.exp2() if self.steep <= MILD else cosines.sub(cosines.amax(1, keepdim=True)).exp2_()
        # In place, as this is the largest array beside the weights.
        weighted = cosines.mul_(weights)
        total = weights.sum(1)
        return _Mixed(weighted, weights, total, weighted.sum(1).div_(total))


class _Mixed(NamedTuple):
    """Attributes: cosines (c, K, n) times log₂(e) / γ and the weights a; these before they are divided by their sums,
    and the sums, (c, n); and the mean of the cosines that they give, (c, n).
    """

    weighted: Tensor
    weights: Tensor
    total: Tensor
    mean: Tensor


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
        scaled, mild = units.T * soft.steep, soft.is_mild()
        top = units.new_full((n,), 0.0 if mild else -torch.inf)
        total, own = units.new_zeros(n), units.new_zeros(1, n)
        apart, inverses = weight.new_zeros(classes), weight.new_empty(classes, k, 1)
        for block in blocks(HELD * n * k, weight):
            centers = directions(weight[block], inverses[block])
            if tau and k > 1:
                apart[block] = spread(centers) * tau
            row, inside = (each.T for each in own_columns(labels, block))
            logits, at = _logits(soft, soft.mix(scaled, centers).mean, row, inside)
            own = torch.where(inside, at, own)
            if mild:
                total += logits.exp2_().sum(0)
            else:
                top, total = add_powers(top, total, logits, 0)
        if share is not None:
            top, total = share.powers(top, total)
            share.sum(own)
        lse = top + total.log2()
        ctx.save_for_backward(units, weight, inverses, labels, lse)
        ctx.soft, ctx.tau = soft, tau
        return (lse - own[0]) / LOG2_E, apart

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, grad: Tensor, by_apart: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        units, weight, inverses, labels, lse = ctx.saved_tensors
        # Dimensions by samples, as products with the gradient by cosines have them in memory.
        by_units = torch.zeros_like(units.T) if ctx.needs_input_grad[0] else None
        by_weight = gradient_like(weight) if ctx.needs_input_grad[1] else None
        scaled, factor = units.T * ctx.soft.steep, grad * ctx.soft.scale
        for block in blocks(HELD * len(units) * weight.shape[1], weight):
            centers = weight[block] * inverses[block]
            by_cosines = _by_cosines(ctx.soft, ctx.soft.mix(scaled, centers), labels, block, lse, factor).flatten(0, 1)
            if by_units is not None:
                add_product(by_units, centers.flatten(0, 1).T, by_cosines)
            if by_weight is not None:
                by_centers = product(by_cosines, units).view_as(centers)
                if ctx.tau and centers.shape[1] > 1:
                    by_centers = by_centers + by_spread(centers) * (ctx.tau * by_apart[block])[:, None, None]
                through_directions(by_centers, centers, inverses[block], by_weight[block])
        return None if by_units is None else by_units.T, by_weight, None, None, None, None


def _logits(soft: SoftCosines, mean: Tensor, row: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (c, n), times log₂(e), of the means of a block, as they are summed; and (1, n) those in a ``row`` for each
    sample, of its own class where that is ``inside`` the block.
    """
    logits = mean * (soft.scale * soft.gamma)
    found = logits.gather(0, row)
    at = found - soft.scale * soft.margin * LOG2_E
    summed = torch.full_like(at, -torch.inf) if soft.others else at
    logits.scatter_(0, row, torch.where(inside, summed, found))
    return logits, at


def _by_cosines(soft: SoftCosines, mixed: _Mixed, labels: Tensor, block: slice, lse: Tensor, factor: Tensor) -> Tensor:
    """The gradient by the cosines (c, K, n) of a block of classes, which is written over what is mixed."""
    row, inside = (each.T for each in own_columns(labels, block))
    by_mean = _logits(soft, mixed.mean, row, inside)[0].sub_(lse).exp2_()
    by_mean.scatter_add_(0, row, inside.to(by_mean).neg_())
    by_mean *= factor
    if mixed.weights.shape[1] == 1:
        return by_mean[:, None]
    # a (1 + (cos − mean) / γ), where a is of the weights what they are of their sum.
    by_mean /= mixed.total * LOG2_E
    rest = mixed.mean.sub_(LOG2_E).mul_(by_mean)
    return mixed.weighted.mul_(by_mean[:, None]).addcmul_(mixed.weights, rest[:, None], value=-1)


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
