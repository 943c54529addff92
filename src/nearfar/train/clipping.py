"""One norm for all gradients of a run, wherever they are, and a limit to it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from nearfar.train.shards import held

__all__ = ["clip"]

#: What torch's ``clip_grad_norm_`` adds to the norm, so that clipping is the same with either.
EPSILON = 1e-6


@torch.no_grad()
def clip(optimizer: torch.optim.Optimizer, limit: float) -> Tensor:
    """Scale the gradients of an optimiser by one factor, so that their norm is at most a limit.

    The norm is Euclidean, over all numbers of all gradients. Of a parameter of which ranks have rows, those of every
    rank count; of any other, which is the same on all ranks, its own count once. So all ranks find the norm that one
    process with everything would, and scale alike: with a factor of its own on each rank what is replicated would no
    longer be the same.

    Parameters
    ----------
    optimizer : Optimizer
        Its gradients are scaled in place. Where it has parameters of ranks every rank calls this.
    limit : float
        (0..inf)

    Returns
    -------
    Tensor
        The norm before, 0-d, in float32 at least.
    """
    everywhere: list[Tensor] = []
    here: list[Tensor] = []
    sharded: DTensor | None = None
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        sharded = parameter if isinstance(parameter, DTensor) else sharded
        if parameter.grad is not None:
            (here if isinstance(parameter, DTensor) else everywhere).append(parameter.grad)
    total = _squares(here)
    if sharded is not None:
        total = total.to(sharded.device)  # where the other ranks have theirs, also of a rank that has no gradient
        dist.all_reduce(total)
    norm = (total + _squares(everywhere)).sqrt()
    factor = (limit / (norm + EPSILON)).clamp_max(1)
    for gradient in (*everywhere, *here):
        numbers = held(gradient)
        numbers *= factor.to(numbers)
    return norm


def _squares(gradients: Iterable[Tensor]) -> Tensor:
    """The sum of the squares of the numbers that this rank has, in float32 at least."""
    total = torch.zeros(())
    for gradient in gradients:
        # What a sparse tensor lists twice is the sum of both.
        numbers = held(gradient.coalesce() if gradient.is_sparse else gradient)
        wide = torch.promote_types(numbers.dtype, torch.float32)
        total = total.to(numbers.device) + torch.linalg.vector_norm(numbers, dtype=wide).square()
    return total
