"""What a margin does, as papers draw it: the target's logit over its angle, and where two classes are told apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar_margin.annealing import Annealing
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import MarginSoftmax

__all__ = ["advantage", "settled", "target_curve"]

#: As many calls as any annealing ends with.
LAST_STEP = 10**9


def settled(loss: nn.Module) -> MarginSoftmax:
    """A margin loss as it is after its training: annealed to the end, in evaluation mode.

    Raises
    ------
    ArgumentError
        It is no margin-softmax loss, or one without a softmax, and so without a logit of the target.
    """
    name = type(loss).__name__
    if not isinstance(loss, MarginSoftmax):
        raise ArgumentError(
            f"{name} is no margin-softmax loss: it says nothing of what becomes of a cosine; a softmax over cosines is "
            "norm_softmax, and one over lengths times cosines modified_softmax"
        )
    if loss.separate:
        raise ArgumentError(
            f"{name} has a loss for each class instead of one softmax, so it has no logit of the target to draw: leave "
            "it out"
        )
    for module in loss.modules():
        if isinstance(module, Annealing):
            module.steps.fill_(LAST_STEP)
    return loss.eval()


@torch.no_grad()
def target_curve(loss: MarginSoftmax, theta: Tensor, length: float = 20.0) -> Tensor:
    """ψ(θ): what takes the place of cos θ, of samples with no hard negative.

    Parameters
    ----------
    loss
        From :func:`settled`.
    theta
        (n,) [radians] angles to the own class.
    length
        Of the embeddings, for losses that mind it.

    Returns
    -------
    Tensor
        (n,).
    """
    t = theta.cos()
    return loss.target(t, _rows(loss, t, torch.full_like(t, -1)[:, None], length))


@torch.no_grad()
def advantage(loss: MarginSoftmax, own: Tensor, other: Tensor, length: float = 20.0) -> Tensor:
    """By how much the own class wins over another: ψ(θ₁) − N(θ₂), 0 on the decision boundary.

    Parameters
    ----------
    loss
        From :func:`settled`.
    own, other
        (n,) [radians] angles to the own class and to the other.
    length
        As in :func:`target_curve`.

    Returns
    -------
    Tensor
        (n,).
    """
    t, c = own.cos(), other.cos()[:, None]
    rows = _rows(loss, t, c, length)
    return loss.target(t, rows) - loss.others(c, rows)[:, 0]


def _rows(loss: MarginSoftmax, t: Tensor, c: Tensor, length: float) -> Rows:
    """What an engine would prepare for samples with these cosines to one other class, (n, 1)."""
    labels = torch.zeros(len(t), dtype=torch.int64)
    rows = loss.prepare(Rows(t=t, norm=torch.full_like(t, length), labels=labels))
    if loss.surveys:
        rows = loss.settle(rows, *(each.sum(1) for each in loss.survey(c, rows)))
    return rows
