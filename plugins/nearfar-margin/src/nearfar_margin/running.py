"""Running means of what batches are like."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["renew"]


@torch.no_grad()
def renew(mean: Tensor, found: Tensor, momentum: float, usable: Tensor) -> None:
    """Move a running mean towards what a batch has, by the share ``momentum``, where ``usable`` () is true.

    A batch that overflowed must show in its loss, where a loss scaler skips it, and not stay in the mean. Whether it
    did is not asked, which would stall a GPU.
    """
    mean.copy_(torch.where(usable, mean.lerp(found.to(mean), momentum), mean))
