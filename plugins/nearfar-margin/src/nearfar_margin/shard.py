"""Classes spread over the ranks of a process group: each holds the weights of some of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.ranks import counts, rows_of_all

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.tensor import DTensor

    from nearfar_margin.engine_loss import EngineLoss

__all__ = [
    "Everywhere",
    "Gathered",
    "Scattered",
    "Shard",
    "chunk_gradients",
    "local",
    "refuse_plain",
    "shard",
    "sum_gradients",
]


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """The share of one rank.

    Attributes
    ----------
    group
        The ranks among which classes are spread; None for all.
    rank, world
        Which of them this is, and how many they are.
    num_classes
        How many classes there are on all ranks.
    start, stop
        Its classes. The first ranks have ⌈classes / world⌉ each, as a DTensor's shards have; the last may have none.
    whole_batch
        Whether each rank is called with the batch of all ranks, rather than with its own part.
    """

    group: ProcessGroup | None
    rank: int
    world: int
    num_classes: int
    start: int
    stop: int
    whole_batch: bool = False

    @classmethod
    def of(cls, num_classes: int, group: ProcessGroup | None = None) -> Shard:
        """The share of this process.

        Raises
        ------
        ArgumentError
            There is no process group.
        """
        if not dist.is_available() or not dist.is_initialized():
            raise ArgumentError(
                "a head is sharded over the ranks of a process group, and there is none; start the ranks with torchrun "
                "and call torch.distributed.init_process_group first"
            )
        rank, world = dist.get_rank(group), dist.get_world_size(group)
        size = -(-num_classes // world)
        start, stop = min(rank * size, num_classes), min((rank + 1) * size, num_classes)
        return cls(group, rank, world, num_classes, start, stop)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        dist.all_reduce(tensor, group=self.group)
        return tensor

    def most(self, tensor: Tensor) -> Tensor:
        """The greatest over the ranks, in place."""
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.group)
        return tensor

    def batch(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """The embeddings and labels of all ranks, and how many each has: nobody, where all have all of them.

        Raises
        ------
        InputError
            On every rank, where one has a label that is no class: one that raised alone would leave the others waiting.
        """
        if self.whole_batch:
            return embeddings, labels, []
        told = torch.zeros(self.world, 3, dtype=torch.int64, device=labels.device)
        told[self.rank, 0] = len(labels)
        if len(labels):
            told[self.rank, 1:] = torch.stack(labels.aminmax())
        sizes = []
        for rank, (size, least, greatest) in enumerate(self.sum(told).tolist()):
            sizes.append(size)
            if least < 0 or greatest >= self.num_classes:
                raise InputError(
                    f"the head has num_classes={self.num_classes}, so labels run from 0 to {self.num_classes - 1}; "
                    f"rank {rank} has labels from {least} to {greatest}"
                )
        return Gathered.apply(embeddings, self, sizes), self.gather(labels, sizes), sizes

    def own(self, values: Tensor, sizes: list[int]) -> Tensor:
        """This rank's part of what every rank has computed of all samples, of which each rank has so many."""
        own: Tensor = Everywhere.apply(values, self) if self.whole_batch else Scattered.apply(values, self, sizes)
        return own

    def every_class(self, values: Tensor) -> Tensor:
        """Values of all classes, (num_classes, …), of those of this rank's."""
        size = -(-self.num_classes // self.world)
        each = [min(size, max(self.num_classes - rank * size, 0)) for rank in range(self.world)]
        return self.gather(values, each)

    def sizes(self, n: int, device: torch.device) -> list[int]:
        """How many samples each rank has."""
        return counts(n, device, self.group)

    def gather(self, tensor: Tensor, sizes: list[int]) -> Tensor:
        """The rows of all ranks, (sizes[0] + sizes[1] + …, …)."""
        return rows_of_all(tensor, sizes, self.group)


class Gathered(torch.autograd.Function):
    """The embeddings of all ranks.

    Back goes the gradient of the sum of all ranks' losses, as if each rank had its loss alone: of what comes before,
    replicated, the gradients are averaged afterwards (DistributedDataParallel).
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, shard: Shard, sizes: list[int]) -> Tensor:
        ctx.shard, ctx.sizes = shard, sizes
        return shard.gather(embeddings.contiguous(), sizes)

    @staticmethod
    def backward(ctx: Any, to_all: Tensor) -> tuple[Tensor, None, None]:
        return _part(to_all, ctx.shard, ctx.sizes) * ctx.shard.world, None, None


class Scattered(torch.autograd.Function):
    """This rank's part of what every rank has computed of all samples.

    Back goes to every rank 1 / world of the gradient of the mean of all ranks' losses, so that the *sum* over the
    ranks of whatever follows from it is that gradient: of the same computation everywhere, and of each rank's own.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, shard: Shard, sizes: list[int]) -> Tensor:
        ctx.shard, ctx.sizes = shard, sizes
        return _part(values, shard, sizes).clone()

    @staticmethod
    def backward(ctx: Any, to_part: Tensor) -> tuple[Tensor, None, None]:
        everything: Tensor = ctx.shard.gather(to_part.contiguous(), ctx.sizes)
        return everything / ctx.shard.world**2, None, None


class Everywhere(torch.autograd.Function):
    """What every rank has computed of all samples, and goes on with alike.

    Back goes to every rank 1 / world of the gradient, so that the sum over the ranks of whatever follows is that
    gradient.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, shard: Shard) -> Tensor:
        ctx.world = shard.world
        return values.clone()

    @staticmethod
    def backward(ctx: Any, to_all: Tensor) -> tuple[Tensor, None]:
        return to_all / ctx.world, None


def _part(everything: Tensor, shard: Shard, sizes: list[int]) -> Tensor:
    """This rank's rows of those of all ranks."""
    start = sum(sizes[: shard.rank])
    return everything[start : start + sizes[shard.rank]]


def shard(loss: EngineLoss, group: ProcessGroup | None = None) -> EngineLoss:
    """Spread the classes of a loss over the ranks of a process group, in place.

    Each rank then calls the loss with the embeddings and labels of its own part of the batch, of any size, and gets
    their values. Gradients are those of the mean of the ranks' losses, as DistributedDataParallel has them, for the
    weight too; leave the weight, and the loss with it, out of DistributedDataParallel. What a loss prepares or keeps
    it makes of the whole batch, the same on every rank. Where ``loss.whole_batch`` is set each rank calls it with the
    embeddings and labels of all ranks instead; values and gradients are then those of that batch.

    Parameters
    ----------
    loss
        A loss of the family. If it was made on the meta device, each rank draws the weights of its
        own classes only; else each keeps its part of what it has, which must be the same on all ranks.
    group
        The ranks; all of them unless given.

    Returns
    -------
    EngineLoss
        The loss. Its ``weight`` is a DTensor of the whole shape, so that optimisers keep their state in shards and
        ``torch.distributed.checkpoint`` saves and loads both on any number of ranks; ``weight.full_tensor()`` is the
        one matrix, and takes all ranks to call it.

    Raises
    ------
    ArgumentError
        There is no process group, the loss is sharded already, asks for the plain engine, or more of it than its
        weight is on the meta device.
    """
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor import Shard as Rows

    if loss.shard is not None:
        raise ArgumentError(f"{type(loss).__name__} is sharded already")
    refuse_plain(loss)
    share = Shard.of(loss.num_classes, group)
    whole = loss.weight.detach()
    if whole.is_meta:
        if more := [name for name, each in _tensors(loss) if each.is_meta and name != "weight"]:
            raise ArgumentError(
                f"{type(loss).__name__} has {', '.join(more)} on the meta device besides its weight, with no values to "
                "start from; make it on a real device"
            )
        device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend(group) == "nccl" else "cpu"
        part = torch.empty(share.stop - share.start, *whole.shape[1:], dtype=whole.dtype, device=device)
        # Ranks are often seeded alike, and their classes are not to start alike.
        generator = torch.Generator(device).manual_seed(torch.initial_seed() + share.rank)
        loss.draw(part, generator)
    else:
        part = whole[share.start : share.stop].clone()
    kind = part.device.type
    ranks = dist.group.WORLD if group is None else group
    assert ranks is not None
    mesh = DeviceMesh.from_group(ranks, kind)

    def spread(part: Tensor, whole: Tensor) -> Tensor:
        stride = whole.contiguous().stride()
        return DTensor.from_local(part, mesh, [Rows(0)], run_check=False, shape=whole.shape, stride=stride)

    loss.weight = nn.Parameter(spread(part, whole), requires_grad=loss.weight.requires_grad)
    for name in loss.class_buffers:
        rows = loss.get_buffer(name)
        loss.register_buffer(name, spread(rows[share.start : share.stop].clone(), rows))
    loss.shard = share
    sum_gradients(loss)
    return loss


def refuse_plain(loss: EngineLoss) -> None:
    """Raise an ArgumentError where a loss asks for the engine that no rank with a share of the classes can be."""
    if loss.engine == "plain":
        raise ArgumentError(
            f"{type(loss).__name__} has engine='plain', which takes the logits of all classes at once; ranks that "
            "share classes compute a chunk of them at a time: use 'auto' or 'chunked'"
        )


def sum_gradients(loss: EngineLoss) -> None:
    """Have the gradients of what a sharded loss learns besides its weight, of which each rank has a share, summed.

    Nothing changes where they are already; a copy of a loss has no hooks on its tensors.
    """
    assert loss.shard is not None
    for name, parameter in loss.named_parameters():
        hooks = (parameter._backward_hooks or {}).values()
        if name != "weight" and not any(isinstance(hook, _Summed) for hook in hooks):
            parameter.register_hook(_Summed(loss.shard))  # type: ignore[no-untyped-call]


def local(tensor: Tensor) -> Tensor:
    """The rows of a tensor that this rank holds: all, where it is not spread over ranks."""
    own: Tensor = cast("DTensor", tensor).to_local() if hasattr(tensor, "to_local") else tensor
    return own


def _tensors(loss: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from loss.named_parameters()
    yield from loss.named_buffers()


@dataclass(frozen=True, slots=True)
class _Summed:
    """A gradient over the ranks."""

    share: Shard

    def __call__(self, gradient: Tensor) -> Tensor:
        if _Within.pass_through:
            return gradient
        return _union(gradient.coalesce(), self.share) if gradient.is_sparse else self.share.sum(gradient.clone())


def _union(gradient: Tensor, share: Shard) -> Tensor:
    """The sum over the ranks of gradients of some rows each."""
    rows, values = gradient.indices()[0], gradient.values()
    sizes = share.sizes(len(rows), rows.device)
    everything = share.gather(rows, sizes)[None], share.gather(values, sizes)
    return torch.sparse_coo_tensor(*everything, gradient.shape, check_invariants=False).coalesce()


class _Within:
    """Whether a backward pass is inside one of a function here, which looks at gradients of chunks."""

    pass_through = False


@contextlib.contextmanager
def chunk_gradients() -> Iterator[None]:
    """Leave the gradients of learned tensors as they are, which are summed over the ranks when all chunks are."""
    _Within.pass_through = True
    try:
        yield
    finally:
        _Within.pass_through = False
