"""Proxies spread over the ranks of a process group."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from nearfar.errors import ArgumentError
from nearfar_proxy.proxy_loss import ProxyLoss
from nearfar_proxy.ranks import Share

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["shard"]

Sharded = TypeVar("Sharded", bound=ProxyLoss)


def shard(loss: Sharded, group: ProcessGroup | None = None) -> Sharded:
    """Spread the classes of a proxy loss over the ranks of a process group, in place.

    Each rank then calls the loss with the embeddings and labels of its own part of the batch, of any size, none too,
    and gets the loss of the whole batch: all ranks the same. The gradients of the proxies are its own; those of the
    embeddings are such that DistributedDataParallel, which averages what a replicated model gets, gives the model the
    gradient of that one loss. Leave the loss itself out of DistributedDataParallel. What a miner selects it selects on
    each rank. Where ``loss.whole_batch`` is set each rank calls it with the batch of all ranks instead.

    Parameters
    ----------
    loss
        ``proxy_nca`` on its default distance, ``proxy_nca_pp``, ``proxy_anchor``, ``soft_triple`` or ``proxy_gml``. If
        it was made on the meta device, each rank draws the proxies of its own classes only; else each keeps its part of
        what it has, which must be the same on all ranks.
    group
        The ranks; all of them unless given.

    Returns
    -------
    ProxyLoss
        The loss. Its ``weight`` is a DTensor of the whole shape, so that optimisers keep their state in shards and
        ``torch.distributed.checkpoint`` saves and loads both on any number of ranks.

    Raises
    ------
    ArgumentError
        There is no process group, the loss is sharded already, or it has no proxies that can be.
    """
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor import Shard as Rows

    name = type(loss).__name__
    if not isinstance(loss, ProxyLoss):
        raise ArgumentError(
            f"{name} has no proxies to spread over ranks; losses of margin softmax have a shard of theirs"
        )
    if loss.shard is not None:
        raise ArgumentError(f"{name} is sharded already")
    if reason := loss.cannot_shard():
        raise ArgumentError(f"{name} {reason}")
    share = Share.of(loss.num_classes, group)
    whole, own = loss.weight.detach(), share.classes()
    if whole.is_meta:
        device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend(group) == "nccl" else "cpu"
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            # Ranks are often seeded alike, and their classes are not to start alike.
            torch.manual_seed(torch.initial_seed() + share.rank)
            part = loss.drawn(own.stop - own.start).to(device, whole.dtype)
    else:
        part = whole[own].clone()
    ranks = dist.group.WORLD if group is None else group
    assert ranks is not None
    mesh = DeviceMesh.from_group(ranks, part.device.type)
    tensor = DTensor.from_local(
        part, mesh, [Rows(0)], run_check=False, shape=whole.shape, stride=whole.contiguous().stride()
    )
    loss.weight = nn.Parameter(tensor, requires_grad=loss.weight.requires_grad)
    loss.shard = share
    return loss
