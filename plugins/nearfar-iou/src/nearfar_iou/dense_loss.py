"""The base of losses with a target for every logit, and the one pass that computes value and gradient together."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.closed_form import graph_is_kept, refuse_second_derivative
from nearfar.nn.matching import Matches
from nearfar_iou.logits import check_dense
from nearfar_iou.matched import wanted
from nearfar_iou.pieces import pieces
from nearfar_iou.score_loss import ScoreLoss, class_ids

__all__ = ["DenseLoss", "Measured", "Odds", "Wanted", "check_normalizer", "power", "tail"]

#: Logits a piece and thread, of which some ten numbers are kept at once.
PIECE = 131072


class Measured(NamedTuple):
    """Losses of logits, and where they were asked for their derivatives by the logits and by the targets."""

    value: Tensor
    by_logits: Tensor | None
    by_targets: Tensor | None = None


class Wanted(NamedTuple):
    """Which derivatives are asked for, and whether all targets are known to be 0 or 1."""

    by_logits: bool
    by_targets: bool
    is_hard: bool


class DenseLoss(ScoreLoss):
    """A loss of each logit by itself, added up over the classes of an element; a subclass writes :meth:`measure`.

    Called as ``loss(logits, targets, logit_weights=None, logit_normalizer=None, logit_groups=None)``: (n,) or (n,
    classes) each, classes independent of each other. Targets are of any dtype; class ids are to be made one-hot first.
    There is one element term an element, the *sum* over its classes, so a mean over elements and classes is smaller by
    their number. Logits and targets get a gradient, which can be taken once, not differentiated again.

    Parameters
    ----------
    normalizer : str, optional
        What ``core.mean`` divides the sum over elements by. None: the number of elements. ``"positives"``: the
        number of positive targets, 1 at least; of this batch, not of all ranks.
    reducer : nn.Module, optional
        ``core.mean`` by default.

    Raises
    ------
    ArgumentError
        ``normalizer`` is unknown.
    InputError
        Logits and targets are not two tensors of the same shape (n,) or (n, classes), or (looked at on the CPU
        alone, where it stalls nothing) a target is outside of 0..1.
    """

    #: Whether the target of a matched prediction is how near its box is, rather than 1.
    on_quality: ClassVar[bool] = False

    def __init__(self, normalizer: Literal["positives"] | None = None, *, reducer: nn.Module | None = None) -> None:
        super().__init__(reducer=reducer)
        self.normalizer = check_normalizer(normalizer)

    @abstractmethod
    def measure(self, logits: Tensor, targets: Tensor, wants: Wanted) -> Measured:
        """The losses (k,) of k logits and, where they are asked for, their derivatives."""

    def positives(self, targets: Tensor) -> Tensor:
        """How many positive targets there are; a 0-d tensor."""
        return (targets > 0).sum()

    def is_positive(self, targets: Tensor) -> Tensor | None:
        return targets > 0 if targets.ndim == 1 else (targets > 0).any(1)

    def matched_targets(self, matches: Matches, logits: Tensor, classes: Tensor | None) -> Tensor:
        """The weight of a match, its quality or 1, in the column of its class; 0 everywhere else."""
        made = torch.zeros_like(logits)
        count = logits.shape[1] if logits.ndim == 2 else 1
        columns = class_ids(classes, matches, count)
        soft = matches.quality if self.on_quality else torch.ones_like(matches.quality)
        soft = (soft if matches.weights is None else matches.weights).to(made.dtype)
        made.view(len(made), count)[matches.predictions, columns] = soft
        return made

    def values(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, targets, is_hard = check_dense(logits, targets)
        for_logits, for_targets = wanted(logits, targets)
        values: Tensor = _Pass.apply(logits, targets, self, Wanted(for_logits, for_targets, is_hard))
        return values, None if self.normalizer is None else self.positives(targets.detach()).clamp_min(1)

    def extra_repr(self) -> str:
        return f"normalizer={self.normalizer!r}"


def check_normalizer(normalizer: str | None) -> str | None:
    """``normalizer``, or :class:`ArgumentError` where it is none that there is."""
    if normalizer not in (None, "positives"):
        raise ArgumentError(f"normalizer is None or 'positives'; not {normalizer!r}")
    return normalizer


class Odds(NamedTuple):
    """The probabilities of 1 and of 0 that logits z stand for, σ(z) and σ(−z), and ln(1 − m) for the smaller, m."""

    logits: Tensor
    p: Tensor
    q: Tensor
    tail: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> Odds:
        p, q = logits.sigmoid(), logits.neg().sigmoid_()
        return cls(logits, p, q, tail(p, q))

    def costs(self) -> tuple[Tensor, Tensor]:
        """−ln p and −ln q, to full relative precision however close to 0."""
        return self.logits.clamp_max(0).add_(self.tail).neg_(), self.logits.clamp_min(0).sub_(self.tail)

    def ease(self, gamma: float) -> tuple[Tensor, Tensor]:
        """q^γ and p^γ: how much an example counts by how easy it is, as a 1 and as a 0."""
        return power(self.q, -self.logits, self.tail, gamma), power(self.p, self.logits, self.tail, gamma)


def tail(p: Tensor, q: Tensor) -> Tensor:
    """ln(1 − m) for the smaller, m, of two probabilities that add up to 1.

    ln σ(z) is this much more than the lesser of z and 0; softplus takes a third longer.
    """
    return torch.minimum(p, q).neg_().log1p_()


def power(p: Tensor, logits: Tensor, tail: Tensor, exponent: float) -> Tensor:
    """p = σ(z) to the power of an exponent, 0 or greater; 1 where that is 0."""
    if exponent == 0:
        return torch.ones_like(p)
    if exponent == 1:
        return p.clone()
    if exponent == 2:
        return p.square()
    # A quarter of the time of pow.
    return logits.clamp_max(0).add_(tail).mul_(exponent / math.log(2)).exp2_()


class _Pass(torch.autograd.Function):
    """Losses (n,) of logits and targets (n,) or (n, classes), with their gradients."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, loss: DenseLoss, wants: Wanted) -> Tensor:
        row = logits.shape[1:].numel()
        parts = list(pieces(len(logits), logits.device, max(1, PIECE // max(row, 1))))
        if len(parts) == 1:
            values, *kept = _measured(loss, logits, targets, wants)
        else:
            values = logits.new_zeros(len(logits))
            kept = [torch.empty_like(logits) if asked else None for asked in wants[:2]]
            for part in parts if row else ():
                value, *made = _measured(loss, logits[part], targets[part], wants)
                values[part] = value
                for slopes, those in zip(kept, made, strict=True):
                    if slopes is not None and those is not None:
                        slopes[part] = those
        ctx.save_for_backward(*kept)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        scale = torch.mul if graph_is_kept() else torch.Tensor.mul_
        by = (
            None if slopes is None else scale(slopes, grad if slopes.ndim == 1 else grad[:, None])
            for slopes in ctx.saved_tensors
        )
        return (*by, None, None)


def _measured(
    loss: DenseLoss, logits: Tensor, targets: Tensor, wants: Wanted
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The losses of elements, and their derivatives in the shape of the logits."""
    shape = logits.shape
    value, *slopes = loss.measure(logits.reshape(-1), targets.reshape(-1), wants)
    by_logits, by_targets = (None if each is None else each.view(shape) for each in slopes)
    # A sum along an axis of 1 takes longer than all the rest.
    return value.view(shape).sum(1) if len(shape) == 2 and shape[1] != 1 else value, by_logits, by_targets
