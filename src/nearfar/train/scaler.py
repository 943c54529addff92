"""The loss scaler of float16 training where ranks have gradients of their own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.train.shards import held

__all__ = ["RanksScaler"]


class RanksScaler(torch.amp.GradScaler):
    """A scaler that skips a step on all ranks where a gradient overflowed on one.

    What a rank has of a gradient is unscaled there: torch's own take no tensors of ranks beside whole ones.
    """

    def _unscale_grads_(
        self, optimizer: torch.optim.Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for gradient in _held(optimizer):
            by_kind.setdefault((gradient.device, gradient.dtype), []).append(gradient)
        with torch.no_grad():
            for gradients in by_kind.values():
                torch._amp_foreach_non_finite_check_and_unscale_(gradients, found_inf, inv_scale)
        dist.all_reduce(found_inf, dist.ReduceOp.MAX)
        return {found_inf.device: found_inf}


def _held(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """The numbers that this rank has of the gradients."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            if (numbers := held(gradient)).numel():
                yield numbers
