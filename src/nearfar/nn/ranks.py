"""What the ranks of a process group tell each other, each having as much as it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["counts", "rows_of_all"]


def counts(n: int, device: torch.device, group: ProcessGroup | None = None) -> list[int]:
    """The numbers that the ranks give, each its own."""
    found = torch.zeros(dist.get_world_size(group), dtype=torch.int64, device=device)
    found[dist.get_rank(group)] = n
    dist.all_reduce(found, group=group)
    return [int(each) for each in found.tolist()]


def rows_of_all(rows: Tensor, sizes: Sequence[int], group: ProcessGroup | None = None) -> Tensor:
    """The rows of all ranks, one rank's after the other's, of which each has as many as ``sizes`` says; no gradient.

    Ranks send as much as the largest has: not every backend gathers what differs in size.
    """
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
