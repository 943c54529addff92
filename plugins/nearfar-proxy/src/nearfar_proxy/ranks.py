"""Classes spread over the ranks of a process group, and what ranks tell each other on the way forth and back.

Every rank computes the loss of the whole batch, from its own classes' part of what is summed over classes; so values
that have been brought together, and the gradients by them, are the same on all ranks. What follows for gradients:

- of embeddings, each rank finds what its own classes say; these are added (:class:`Everyone`);
- of a sum over ranks, each rank's part has the gradient of the sum (:class:`Total`);
- of values of classes, each rank takes those of its own (:class:`AllClasses`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.errors import ArgumentError
from nearfar.nn.ranks import rows_of_all

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["AllClasses", "Everyone", "Share", "Total"]


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The classes of one rank.

    Attributes
    ----------
    group
        The ranks; None for all.
    rank, world
        Which this is, of how many.
    num_classes
        On all ranks.
    """

    group: ProcessGroup | None
    rank: int
    world: int
    num_classes: int

    @classmethod
    def of(cls, num_classes: int, group: ProcessGroup | None = None) -> Share:
        """That of this process.

        Raises
        ------
        ArgumentError
            There is no process group.
        """
        if not dist.is_available() or not dist.is_initialized():
            raise ArgumentError(
                "proxies are sharded over the ranks of a process group, and there is none; start the ranks with "
                "torchrun and call torch.distributed.init_process_group first"
            )
        return cls(group, dist.get_rank(group), dist.get_world_size(group), num_classes)

    def classes(self, rank: int | None = None) -> slice:
        """Those of a rank, this one unless given: ⌈classes / world⌉ as long as there are, as a DTensor has them."""
        rank = self.rank if rank is None else rank
        size = -(-self.num_classes // self.world)
        return slice(min(rank * size, self.num_classes), min((rank + 1) * size, self.num_classes))

    @property
    def start(self) -> int:
        """The first of its classes."""
        return int(self.classes().start)

    @property
    def stop(self) -> int:
        """Where they end."""
        return int(self.classes().stop)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        dist.all_reduce(tensor, group=self.group)
        return tensor

    def most(self, tensor: Tensor) -> Tensor:
        """The greatest over the ranks, in place."""
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.group)
        return tensor

    def powers(self, top: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of powers of 2, as :func:`nearfar_proxy.blocks.add_powers` has them, over the ranks."""
        highest = self.most(top.clone())
        # Of a rank without classes the greatest is −inf, and its sum is 0.
        return highest, self.sum(torch.where(total > 0, total * (top - highest).exp2(), 0))

    def rows(self, tensor: Tensor, sizes: list[int]) -> Tensor:
        """The rows of all ranks, of which each has as many as ``sizes`` says."""
        return rows_of_all(tensor, sizes, self.group)

    def sizes(self) -> list[int]:
        """How many classes each rank has."""
        spans = map(self.classes, range(self.world))
        return [span.stop - span.start for span in spans]


class Everyone(torch.autograd.Function):
    """The embeddings of all ranks.

    Back goes the sum of the gradients that the ranks find for this rank's rows, times the number of ranks: of what
    comes before, replicated, DistributedDataParallel averages the gradients. Without ``sizes`` every rank has given
    those of all, and gets the sum for all of them.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, share: Share, sizes: list[int] | None) -> Tensor:
        ctx.share, ctx.sizes = share, sizes
        return embeddings.clone() if sizes is None else share.rows(embeddings, sizes)

    @staticmethod
    def backward(ctx: Any, to_all: Tensor) -> tuple[Tensor, None, None]:
        share, sizes = ctx.share, ctx.sizes
        summed = share.sum(to_all.contiguous().clone())
        if sizes is None:
            return summed, None, None
        start = sum(sizes[: share.rank])
        return summed[start : start + sizes[share.rank]] * share.world, None, None


class Total(torch.autograd.Function):
    """The sum over the ranks of what each has a part of."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, share: Share) -> Tensor:
        return share.sum(part.clone())

    @staticmethod
    def backward(ctx: Any, to_sum: Tensor) -> tuple[Tensor, None]:
        return to_sum, None


class AllClasses(torch.autograd.Function):
    """The values of all classes, (num_classes, …), of those of this rank's.

    With ``partial`` what follows differs between ranks, whose gradients are added.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: Share, partial: bool = False) -> Tensor:
        ctx.share, ctx.partial = share, partial
        return share.rows(values, share.sizes())

    @staticmethod
    def backward(ctx: Any, to_all: Tensor) -> tuple[Tensor, None, None]:
        if ctx.partial:
            to_all = ctx.share.sum(to_all.contiguous().clone())
        return to_all[ctx.share.classes()], None, None
