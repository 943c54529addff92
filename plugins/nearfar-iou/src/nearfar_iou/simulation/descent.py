"""Boxes go down a loss, along its gradient or along the published direction, and leave how far off they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.nn.reducers import NoReduction
from nearfar_iou.box_loss import BoxLoss
from nearfar_iou.iou import IoU
from nearfar_iou.simulation.cases import PER_POINT, RATES, cases
from nearfar_iou.simulation.published import direction

__all__ = ["NEAR", "Descended", "along_gradient", "along_published", "descend"]

#: The error below which a box counts as arrived.
NEAR = 0.01

#: Of predictions and targets, (4, n) each: their IoU (n,) and where the predictions go, (4, n).
Direction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Descended:
    """What became of the cases of k points; an error is ``|x| + |y| + |w| + |h|`` off the target.

    Attributes
    ----------
    curve
        (201,): the sum of all errors, at first and after each step.
    surface
        (k,): the sum of the final errors of each point's 343 cases.
    near
        How many cases end within :data:`NEAR`.
    """

    curve: Tensor
    surface: Tensor
    near: int


def along_published(loss: str) -> Direction:
    """The published direction of one of the paper's losses."""
    return lambda pred, target: direction(loss, pred, target)


def along_gradient(loss: BoxLoss) -> Direction:
    """Against the gradient of a loss, as its backward pass gives it; the loss is set to ``cxcywh`` and unreduced."""
    loss.box_format = "cxcywh"
    loss.reducer = overlap_reducer = NoReduction()
    overlap = IoU(box_format="cxcywh", reducer=overlap_reducer)

    def down(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        boxes, truth = pred.t().requires_grad_(), target.t()
        (gradient,) = torch.autograd.grad(loss(boxes, truth).sum(), boxes)
        with torch.no_grad():
            iou = 1 - overlap(boxes, truth)
        return iou, gradient.t().neg()

    return down


def descend(centres: Tensor, towards: Direction) -> Descended:
    """Take the 343 cases of each of k points (2, k) down, ``B ← B + rate · (2 − IoU) · direction`` in each step."""
    pred, target = cases(centres)
    curve = [(pred - target).abs().sum()]
    for rate in RATES:
        iou, step = towards(pred, target)
        pred = pred + rate * (2 - iou) * step
        curve.append((pred - target).abs().sum())
    final = (pred - target).abs().sum(0)
    return Descended(torch.stack(curve), final.view(-1, PER_POINT).sum(1), int((final < NEAR).sum()))
