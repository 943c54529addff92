"""The sharded engine: the chunked one on each rank's classes, over the samples of all ranks.

A step takes two all-reduces of the size of the batch for the log-sum-exp (its greatest logit, its sum), one for the
target's cosine, and moves embeddings and their gradients once: what is sent does not grow with the classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar_margin.declaration import Declaration
from nearfar_margin.engine_chunked import chunked, chunked_linear
from nearfar_margin.shard import Gathered, Scattered, Shard

__all__ = ["sharded", "sharded_linear"]


def sharded(
    loss: Declaration,
    embeddings: Tensor,
    weight: Tensor,
    labels: Tensor,
    shard: Shard,
    *,
    budget: float,
    products: torch.dtype | None = None,
) -> Tensor:
    """The loss of each of this rank's samples, (n,); ``weight`` holds this rank's classes alone."""
    sizes = shard.sizes(len(embeddings), embeddings.device)
    everything = Gathered.apply(embeddings, shard, sizes)
    values = chunked(
        loss, everything, weight, shard.gather(labels, sizes), budget=budget, products=products, shard=shard
    )
    own: Tensor = Scattered.apply(values, shard, sizes)
    return own


def sharded_linear(
    embeddings: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    smoothing: float,
    shard: Shard,
    *,
    budget: float,
    products: torch.dtype | None = None,
) -> Tensor:
    """The cross entropy of each of this rank's samples, (n,); every rank has the whole ``bias``."""
    sizes = shard.sizes(len(embeddings), embeddings.device)
    everything = Gathered.apply(embeddings, shard, sizes)
    values = chunked_linear(
        everything,
        weight,
        bias,
        shard.gather(labels, sizes),
        smoothing,
        budget=budget,
        products=products,
        shard=shard,
    )
    own: Tensor = Scattered.apply(values, shard, sizes)
    return own
