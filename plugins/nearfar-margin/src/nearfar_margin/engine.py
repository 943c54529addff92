"""The engines: one declaration, several ways to compute it.

=============  ===========================================================  =======================================
``plain``      all logits at once, differentiated by autograd               :mod:`nearfar_margin.engine_plain`
``chunked``    a chunk of the classes at a time, the gradient written out   :mod:`nearfar_margin.engine_chunked`
*sharded*      the chunked one on the classes of each rank                  :mod:`nearfar_margin.engine_sharded`
=============  ===========================================================  =======================================

The first two are asked for by name; whether a head is sharded, :func:`nearfar_margin.shard.shard` decides, and whether
a step has a sample of the classes only, :func:`nearfar_margin.sampling.sample`, on any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.nn.class_losses import cross_entropy
from nearfar_margin.declaration import Declaration
from nearfar_margin.engine_chunked import chunked, chunked_linear
from nearfar_margin.engine_plain import plain
from nearfar_margin.engine_sharded import sharded, sharded_linear
from nearfar_margin.fused import FusedSGD
from nearfar_margin.sampling import Sampler
from nearfar_margin.shard import Shard

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["ENGINES", "Engine", "Settings", "autocast_dtype", "compute", "compute_linear"]

Engine = Literal["auto", "plain", "chunked"]
ENGINES: tuple[Engine, ...] = ("auto", "plain", "chunked")

#: From so many logits on, the chunked engine is the faster one.
MANY = 1 << 20
#: What the chunked engine may keep unless told otherwise, MB.
BUDGET = 256.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How a loss is to be computed.

    Attributes
    ----------
    engine
        Which engine, or ``auto``.
    memory_budget
        [MB] What the chunked engine may keep for the backward pass; None for its default.
    products
        In which dtype it multiplies matrices; None for that of the embeddings and weights.
    shard
        This rank's share of the classes, where they are spread over ranks.
    sampler
        What draws the classes of a step, where it has not all of them.
    fused
        What steps the weight in the backward pass, where no optimiser does afterwards.
    """

    engine: Engine = "auto"
    memory_budget: float | None = None
    products: torch.dtype | None = None
    shard: Shard | None = None
    sampler: Sampler | None = None
    fused: FusedSGD | None = None

    def chosen(self, embeddings: Tensor, weight: Tensor) -> Literal["plain", "chunked"]:
        """The engine for weights (c, …, d)."""
        if self.fused is not None:
            return "chunked"
        if self.engine != "auto":
            return self.engine
        return "chunked" if len(embeddings) * weight[..., 0].numel() >= MANY else "plain"

    @property
    def bytes(self) -> float:
        """The budget in bytes."""
        return 1e6 * (BUDGET if self.memory_budget is None else self.memory_budget)


def compute(loss: Declaration, embeddings: Tensor, weight: Tensor, labels: Tensor, settings: Settings) -> Tensor:
    """The loss of each sample, (n,), of embeddings (n, d), class weights and labels (n,).

    Weights are (c, d), or (c, k, d) where each class has k vectors and the nearest counts.
    """
    if settings.shard is not None:
        return sharded(
            loss,
            embeddings,
            cast("DTensor", weight),
            labels,
            settings.shard,
            budget=settings.bytes,
            products=settings.products,
            sampler=settings.sampler,
            fused=settings.fused,
        )
    drawn = None
    if settings.sampler is not None:
        drawn = settings.sampler.draw(labels, len(weight))
        weight = drawn.among(weight)
    if settings.chosen(embeddings, weight) == "plain":
        return plain(loss, embeddings, weight, labels, sample=drawn)
    return chunked(
        loss,
        embeddings,
        weight,
        labels,
        budget=settings.bytes,
        products=settings.products,
        sample=drawn,
        fused=settings.fused,
    )


def compute_linear(
    embeddings: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    smoothing: float,
    settings: Settings,
) -> Tensor:
    """The cross entropy of each sample, (n,), of the logits ``embeddings @ weight.T + bias``.

    ``smoothing`` / c of the probability is put on every class.
    """
    if settings.shard is not None:
        return sharded_linear(
            embeddings,
            cast("DTensor", weight),
            bias,
            labels,
            smoothing,
            settings.shard,
            budget=settings.bytes,
            products=settings.products,
            sampler=settings.sampler,
            fused=settings.fused,
        )
    if settings.sampler is not None:
        drawn = settings.sampler.draw(labels, len(weight))
        weight, labels = drawn.among(weight), drawn.places
        bias = None if bias is None else drawn.among(bias)
    if settings.chosen(embeddings, weight) == "chunked":
        return chunked_linear(
            embeddings,
            weight,
            bias,
            labels,
            smoothing,
            budget=settings.bytes,
            products=settings.products,
            fused=settings.fused,
        )
    dtype = torch.promote_types(embeddings.dtype, weight.dtype)
    logits = F.linear(embeddings.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    return cross_entropy(logits, labels, smoothing)


def autocast_dtype(tensor: object) -> torch.dtype | None:
    """bfloat16 where autocast asks for it on the device of ``tensor``; None elsewhere.

    Not float16: the share of a class among many is below what it can tell from 0.
    """
    kind = tensor.device.type if isinstance(tensor, Tensor) else "meta"
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    dtype = torch.get_autocast_dtype(kind)
    return dtype if dtype == torch.bfloat16 else None
