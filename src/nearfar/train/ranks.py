"""The processes a run is spread over: one a device, each with its part of every batch."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler

from nearfar.data import PKSampler
from nearfar.data.sampling import Draw
from nearfar.errors import ConfigError
from nearfar.nn import Criterion

__all__ = ["Ranks", "Share", "begin", "gathered", "give_whole_batches", "leave"]


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process this is, and how many they are.

    Attributes
    ----------
    rank, world
        Among all.
    local, local_world
        Among those of this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    local_world: int = 1

    @classmethod
    def join(cls, devices: int, *, cuda: bool) -> Ranks:
        """The place of this process: in the group there is, in the one torchrun started it for, or alone.

        Raises
        ------
        ConfigError
            ``devices`` of the configuration is another number than there are processes, or than there are GPUs.
        """
        if not dist.is_initialized() and "TORCHELASTIC_RUN_ID" in os.environ:
            begin(cuda=cuda)
            # Not at the end of a run: the store that torchrun shares remembers a group, and no second one could open.
            # Nor nccl's after an error: it waits for the other ranks, which may wait for this one.
            if not cuda:
                atexit.register(leave)
        if not dist.is_initialized():
            return cls()
        rank, world = dist.get_rank(), dist.get_world_size()
        if devices not in (1, world):
            raise ConfigError(f"devices is {devices}, and {world} processes were started: leave devices out")
        place = cls(
            rank, world, int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", world))
        )
        if cuda:
            if place.local_world > torch.cuda.device_count():
                raise ConfigError(
                    f"{place.local_world} processes want a GPU each, and there are {torch.cuda.device_count()}"
                )
            torch.cuda.set_device(place.local)
        return place

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.rank == 0

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank."""
        if self.world == 1:
            return here
        flag = torch.tensor(int(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def rows(self, tensor: Tensor) -> Tensor:
        """The rows of all ranks, in their order, each having as many; without a gradient."""
        if self.world == 1:
            return tensor.detach()
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(parts, tensor.detach().contiguous())
        return torch.cat(parts)

    def told(self, value: Any) -> Any:
        """What the first rank has."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]


def begin(*, cuda: bool, **arguments: Any) -> None:
    """Open the process group: tensors on the CPU go by gloo, those on GPUs by nccl."""
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", **arguments)


def leave() -> None:
    """Close the group, where there is one, while Python is whole: threads of gloo's that outlive it may abort the
    process. Where all has gone well all ranks come here.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


class Share(Sampler[list[Draw]]):
    """The draws of each batch that are a rank's: as many for each, in order."""

    def __init__(self, sampler: PKSampler, ranks: Ranks) -> None:
        self.sampler, self.ranks = sampler, ranks

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in self.sampler:
            size = len(batch) // self.ranks.world
            yield batch[self.ranks.rank * size : (self.ranks.rank + 1) * size]


def give_whole_batches(criterion: Criterion) -> None:
    """Tell all losses that each rank calls them with the batch of all (:func:`gathered`)."""
    for module in criterion.modules():
        if hasattr(module, "whole_batch"):
            setattr(module, "whole_batch", True)  # noqa: B010  # to a type checker modules have tensors


def gathered(embeddings: Tensor, labels: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """The embeddings and labels of all ranks, in the order of the ranks, each rank having as many.

    What every rank then computes of them is the same. Back goes each rank's own part of the gradient times the number
    of ranks, so that the mean over the ranks, which DistributedDataParallel takes, is the gradient of the whole batch.
    """
    if ranks.world == 1:
        return embeddings, labels
    everything: Tensor = _Gathered.apply(embeddings, ranks)
    return everything, ranks.rows(labels)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.rows(embeddings)

    @staticmethod
    def backward(ctx: Any, to_all: Tensor) -> tuple[Tensor, None]:
        return to_all.chunk(ctx.ranks.world)[ctx.ranks.rank] * ctx.ranks.world, None
