"""The engines: one declaration, several ways to compute it.

=============  ===========================================================  =======================================
``plain``      all logits at once, differentiated by autograd               :mod:`nearfar_margin.engine_plain`
``chunked``    a chunk of the classes at a time, the gradient written out   :mod:`nearfar_margin.engine_chunked`
=============  ===========================================================  =======================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nearfar_margin.declaration import Declaration
from nearfar_margin.engine_chunked import chunked
from nearfar_margin.engine_plain import plain

__all__ = ["ENGINES", "Engine", "Settings", "autocast_dtype", "compute"]

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
    """

    engine: Engine = "auto"
    memory_budget: float | None = None
    products: torch.dtype | None = None


def compute(loss: Declaration, embeddings: Tensor, weight: Tensor, labels: Tensor, settings: Settings) -> Tensor:
    """The loss of each sample, (n,), of embeddings (n, d), class weights and labels (n,).

    Weights are (c, d), or (c, k, d) where each class has k vectors and the nearest counts.
    """
    engine = settings.engine
    if engine == "auto":
        engine = "chunked" if len(embeddings) * weight[..., 0].numel() >= MANY else "plain"
    if engine == "plain":
        return plain(loss, embeddings, weight, labels)
    budget = BUDGET if settings.memory_budget is None else settings.memory_budget
    return chunked(loss, embeddings, weight, labels, budget=budget * 1e6, products=settings.products)


def autocast_dtype(tensor: object) -> torch.dtype | None:
    """The dtype that autocast asks for where ``tensor`` is; None where it is off."""
    kind = tensor.device.type if isinstance(tensor, Tensor) else "meta"
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)
