"""The sums by class that running centres move by, of the calls of a step and of all ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.nn.ranks import counts, rows_of_all

__all__ = ["Seen", "every_rank", "sums_by_label"]

#: What a call saw: (n, d) differences to the centres, and (n,) labels.
Seen = tuple[Tensor, Tensor]


def every_rank(seen: Seen) -> Seen:
    """What all ranks saw, in the order of the ranks and the same on each; where there is one process, its own.

    Every rank must call it, one that saw nothing too.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return seen
    offsets, labels = seen
    sizes = counts(len(labels), labels.device)
    return rows_of_all(offsets, sizes), rows_of_all(labels, sizes)


def sums_by_label(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each row the sum of the rows of its label and their number, and its label: (n, d), (n, 1), (n,), sorted.

    Rows whose squared length is not finite count for nothing. Added up in a fixed order on every device, as kernels
    that add where an index says do not; rows of one label get the same bits.
    """
    alive = rows.square().sum(1, keepdim=True).isfinite()
    counted = torch.cat([rows.masked_fill(~alive, 0), alive.to(rows)], 1)
    ordered, order = labels.sort(stable=True)
    first = torch.searchsorted(ordered, ordered)
    lengths = torch.searchsorted(ordered, ordered, right=True) - first
    # A run of equal labels is one segment, and as many empty ones as make up the number of rows, so that nobody has to
    # ask a GPU how many labels there are.
    lengths = torch.where(first == torch.arange(len(first), device=first.device), lengths, 0)
    sums = torch.segment_reduce(counted[order], "sum", lengths=lengths, axis=0, unsafe=True)[first]
    return sums[:, :-1], sums[:, -1:], ordered
