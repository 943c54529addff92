"""The weight of every pair of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn import Criterion

# Of the gradient's length, how much may lie outside what the embeddings span.
_RESIDUAL = 1e-6


def pair_weights(criterion: Criterion, embeddings: Tensor, labels: Tensor) -> Tensor:
    r"""∂L/∂S of every pair of a batch, S the inner product of its two embeddings.

    Where a loss looks at embeddings through their inner products only, its gradient is
    :math:`\partial L / \partial x_i = \sum_j w_{ij} x_j`, and the weights are read off it: of any such loss, however it
    is computed. A weight counts both directions of a pair. Positive: the loss wants them apart; negative: together.

    Parameters
    ----------
    criterion : Criterion
        On embeddings.
    embeddings : Tensor
        (n, d) linearly independent, so d ≥ n.
    labels : Tensor
        (n,) integers.

    Returns
    -------
    Tensor
        (n, n) float64, symmetric; the diagonal is 0.

    Raises
    ------
    InputError
        The embeddings are linearly dependent, or the loss compares them with something else, such as classes.
    """
    x = embeddings.detach().double().requires_grad_()
    if x.ndim != 2 or int(torch.linalg.matrix_rank(x.detach())) < len(x):
        raise InputError(
            f"weights are read off a gradient by embeddings that are linearly independent; got {tuple(x.shape)} of "
            "lower rank: give fewer, or more dimensions"
        )
    gradient = gradient_of(criterion, x, labels)
    weights: Tensor = torch.linalg.lstsq(x.detach().T, gradient.T).solution.T
    outside = (weights @ x.detach() - gradient).norm()
    if outside > _RESIDUAL * gradient.norm():
        raise InputError(
            f"{criterion.recipe} pulls embeddings elsewhere than towards and away from each other: it compares them "
            "with classes or proxies, whose weights responses() and curves() show"
        )
    return weights.fill_diagonal_(0)


def gradient_of(criterion: Criterion, x: Tensor, labels: Tensor, **inputs: Any) -> Tensor:
    """The gradient of the criterion's value by ``x``, or zeros where it does not depend on it."""
    value = criterion(x, labels, **inputs)
    if not value.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient
