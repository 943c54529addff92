"""The base of losses that an engine computes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, cast

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn import ClassLoss
from nearfar.nn.arguments import check_choice, non_negative
from nearfar_margin.engine import ENGINES, Engine, Settings, autocast_dtype
from nearfar_margin.fused import FusedSGD
from nearfar_margin.row_optimizers import RowAdamW, RowOptimizer, RowSGD
from nearfar_margin.sampling import Sampler, sample
from nearfar_margin.shard import Shard, refuse_plain, shard, sum_gradients

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.tensor import DTensor

__all__ = ["CommonArguments", "Engine", "EngineArguments", "EngineLoss", "Smoothing"]

Smoothing = Literal["uniform", "others"]


class EngineArguments(TypedDict, total=False):
    """What every loss of the family takes besides its own arguments, and hands on to its base."""

    engine: Engine
    memory_budget: float | None
    reducer: nn.Module | None


class CommonArguments(EngineArguments, total=False):
    """What every one with a softmax takes besides."""

    label_smoothing: float
    smoothing: Smoothing


class EngineLoss(ClassLoss):
    """A loss on the logits of classes, computed by one of the engines (:mod:`nearfar_margin.engine`).

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, C.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    label_smoothing : float
        [0..1] Probability taken from the own class, ε; 0 by default, 0.1 where Szegedy et al. 2016 (1512.00567,
        section 7) propose it.
    smoothing : {"uniform", "others"}
        Who gets it: every class ε/C, the own one too (the paper, torch), or each other class ε/(C − 1)
        (fast-reid). ``others`` with ε equals ``uniform`` with ε·C/(C − 1), and takes ε up to (C − 1)/C, beyond
        which the own class would be the least likely.
    engine : {"auto", "plain", "chunked"}
        ``plain``: all logits at once; can be differentiated twice. ``chunked``: a chunk of the classes at a time, so
        that nothing of the size batch × classes is held but for one buffer, where the memory budget allows it; the
        same values and gradients. ``auto``: chunked as soon as there are logits enough for it to be faster, and
        where classes are spread over ranks, which ``plain`` is refused for.
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
        ``engine`` or ``smoothing`` is none of its choices, the budget is negative, or ``label_smoothing`` is out of
        range.
    """

    weight: nn.Parameter

    #: The names of buffers with a row for each class, of which each rank keeps those of its own classes.
    class_buffers: ClassVar[tuple[str, ...]] = ()

    #: What steps on what is learned once classes are sampled, by the name of what does the same without sampling.
    row_optimizers: ClassVar[Mapping[str, type[RowOptimizer]]] = {"adamw": RowAdamW, "sgd": RowSGD}

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        label_smoothing: float = 0.0,
        smoothing: Smoothing = "uniform",
        engine: Engine = "auto",
        memory_budget: float | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        check_choice(self, "engine", engine, ENGINES)
        check_choice(self, "smoothing", smoothing, ("uniform", "others"))
        self.smoothing: Smoothing = smoothing
        self.label_smoothing = self._checked_smoothing(label_smoothing)
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

    def _checked_smoothing(self, epsilon: float) -> float:
        most = 1.0 if self.smoothing == "uniform" else (self.num_classes - 1) / self.num_classes
        if not 0 <= epsilon <= most:
            raise ArgumentError(
                f"{type(self).__name__}: label_smoothing must be in [0, {most:g}] (smoothing={self.smoothing!r}, "
                f"num_classes={self.num_classes}); got {epsilon}"
            )
        return epsilon

    @property
    def spread(self) -> float:
        """The probability that is spread evenly over all classes, the own one too."""
        if self.smoothing == "uniform" or not self.label_smoothing:
            return self.label_smoothing
        return min(1.0, self.label_smoothing * self.num_classes / (self.num_classes - 1))

    @abstractmethod
    def draw(self, weight: Tensor, generator: torch.Generator | None = None) -> None:
        """Fill the class vectors, or some rows of them, with what they start from."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # of torch
        if self.shard is not None:
            sum_gradients(self)

    def shard_classes(self, group: ProcessGroup | None = None) -> None:
        """As :func:`nearfar_margin.shard.shard`."""
        shard(self, group)

    def sample_classes(self, rate: float, *, seed: int = 0) -> None:
        """As :func:`nearfar_margin.sampling.sample`."""
        sample(self, rate, seed=seed)

    def fused_sgd(self, lr: float, **settings: Any) -> FusedSGD:
        """As :class:`nearfar_margin.fused.FusedSGD` of this loss."""
        return FusedSGD(self, lr, **settings)

    def whole(self) -> Tensor:
        """The class vectors of all ranks; where they are spread, every rank has to call it."""
        weight: Tensor = self.weight
        return weight if self.shard is None else cast("DTensor", weight).full_tensor()

    @property
    def settings(self) -> Settings:
        """How the call at hand is to be computed."""
        steps = (self.sampler, self.fused) if self.training else (None, None)
        share = None
        if self.shard is not None:
            refuse_plain(self)
            share = replace(self.shard, whole_batch=self.whole_batch)
        return Settings(self.engine, self.memory_budget, self._products, share, *steps)

    def forward(self, embeddings: Tensor, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # handed on
        # Work on a batch is taken out of autocast, so what that asks for is asked here.
        self._products = autocast_dtype(embeddings)
        try:
            return super().forward(embeddings, *args, **kwargs)
        finally:
            self._products = None

    def _check_range(self, labels: Tensor) -> None:
        # Ranks that have a part of the batch each check all of it together, when they have told each other.
        if self.shard is None or self.whole_batch:
            super()._check_range(labels)

    def extra_repr(self) -> str:
        smoothed = f", label_smoothing={self.label_smoothing}, smoothing={self.smoothing!r}"
        engine = "" if self.engine == "auto" else f", engine={self.engine!r}"
        return super().extra_repr() + (smoothed if self.label_smoothing else "") + engine
