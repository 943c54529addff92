"""The sharded engine: the chunked one on each rank's classes, over the samples of all ranks.

A step takes two all-reduces of the size of the batch for the log-sum-exp (its greatest logit, its sum), one for the
target's cosine, and moves embeddings and their gradients once: what is sent does not grow with the classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nearfar_margin.declaration import Declaration
from nearfar_margin.engine_chunked import chunked, chunked_linear
from nearfar_margin.fused import FusedSGD
from nearfar_margin.sample import sampled_rows
from nearfar_margin.sampling import Sampler
from nearfar_margin.shard import Shard

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["sharded", "sharded_linear"]


def sharded(
    loss: Declaration,
    embeddings: Tensor,
    weight: DTensor,
    labels: Tensor,
    shard: Shard,
    *,
    budget: float,
    products: torch.dtype | None = None,
    sampler: Sampler | None = None,
    fused: FusedSGD | None = None,
) -> Tensor:
    """The loss of each of this rank's samples, (n,)."""
    everything, labels, sizes = shard.batch(embeddings, labels)
    if sampler is None:
        drawn, part = None, weight.to_local()
    else:
        drawn = sampler.draw(labels, shard.num_classes, shard)
        part = drawn.among(weight, shard)
    values = chunked(
        loss,
        everything,
        part,
        labels,
        budget=budget,
        products=products,
        shard=shard,
        sample=drawn,
        fused=fused,
    )
    return shard.own(values, sizes)


def sharded_linear(
    embeddings: Tensor,
    weight: DTensor,
    bias: Tensor | None,
    labels: Tensor,
    smoothing: float,
    shard: Shard,
    *,
    budget: float,
    products: torch.dtype | None = None,
    sampler: Sampler | None = None,
    fused: FusedSGD | None = None,
) -> Tensor:
    """The cross entropy of each of this rank's samples, (n,); every rank has the whole ``bias``."""
    everything, labels, sizes = shard.batch(embeddings, labels)
    own_bias = None
    if sampler is None:
        drawn, part = None, weight.to_local()
        if bias is not None:
            bias, own_bias = bias[shard.start : shard.stop], bias[labels]
    else:
        drawn = sampler.draw(labels, shard.num_classes, shard)
        part = drawn.among(weight, shard)
        if bias is not None:
            bias, own_bias = sampled_rows(bias, drawn.rows + shard.start), sampled_rows(bias, labels)
    values = chunked_linear(
        everything,
        part,
        bias,
        labels,
        smoothing,
        budget=budget,
        products=products,
        shard=shard,
        sample=drawn,
        fused=fused,
        own_bias=own_bias,
    )
    return shard.own(values, sizes)
