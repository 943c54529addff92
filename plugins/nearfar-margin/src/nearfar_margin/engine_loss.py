"""The base of losses that an engine computes."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from nearfar.nn import ClassLoss
from nearfar.nn.arguments import check_choice, non_negative
from nearfar_margin.engine import ENGINES, Engine, Settings, autocast_dtype
from nearfar_margin.fused import FusedSGD
from nearfar_margin.sampling import Sampler
from nearfar_margin.shard import Shard

__all__ = ["CommonArguments", "EngineLoss"]


class CommonArguments(TypedDict, total=False):
    """What every loss of the family takes besides its own arguments, and hands on to its base."""

    engine: Engine
    memory_budget: float | None
    reducer: nn.Module | None


class EngineLoss(ClassLoss):
    """A loss on the logits of classes, computed by one of the engines (:mod:`nearfar_margin.engine`).

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    engine : {"auto", "plain", "chunked"}
        ``plain``: all logits at once; can be differentiated twice. ``chunked``: a chunk of the classes at a time, so
        that nothing of the size batch × classes is held but for one buffer, where the memory budget allows it; the
        same values and gradients. ``auto``: chunked as soon as there are logits enough for it to be faster.
    memory_budget : float, optional
        [MB, 0..inf] What the chunked engine may keep from the forward pass for the backward pass: where the logits
        (batch × classes × 4 bytes) fit they are kept, which is fastest; where not they are computed a second time, and
        it needs less than 20 MB at any number of classes. 256 unless given.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    Under autocast in bfloat16 the chunked engine multiplies matrices in bfloat16; the target's logit, exponentials,
    logarithms and sums stay in float32. float16 has not the range for the small shares of many classes, and autocast
    in it changes nothing.

    Raises
    ------
    ArgumentError
        ``engine`` is none of the three, or the budget is negative.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        engine: Engine = "auto",
        memory_budget: float | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        check_choice(self, "engine", engine, ENGINES)
        #: May be changed between calls, as the budget may.
        self.engine: Engine = engine
        self.memory_budget = None if memory_budget is None else non_negative("memory_budget", memory_budget)
        #: This rank's share of the classes, where :func:`nearfar_margin.shard.shard` has spread them.
        self.shard: Shard | None = None
        #: What draws the classes of a step, where :func:`nearfar_margin.sampling.sample` has asked for it.
        self.sampler: Sampler | None = None
        #: What steps the weight, in the backward pass, where a :class:`nearfar_margin.fused.FusedSGD` was made for it.
        self.fused: FusedSGD | None = None
        self._products: torch.dtype | None = None

    @property
    def settings(self) -> Settings:
        """How the call at hand is to be computed."""
        steps = (self.sampler, self.fused) if self.training else (None, None)
        return Settings(self.engine, self.memory_budget, self._products, self.shard, *steps)

    def forward(self, embeddings: Tensor, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # handed on
        # Work on a batch is taken out of autocast, so what that asks for is asked here.
        self._products = autocast_dtype(embeddings)
        try:
            return super().forward(embeddings, *args, **kwargs)
        finally:
            self._products = None

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.engine == "auto" else f", engine={self.engine!r}")
