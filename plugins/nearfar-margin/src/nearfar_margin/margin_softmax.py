"""The base of the margin-softmax losses: cosines to the classes, a margin, a scale, cross entropy."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from nearfar.nn import ClassLoss
from nearfar.nn.arguments import check_choice, non_negative, positive
from nearfar.nn.vectors import unit
from nearfar_margin.declaration import Rows
from nearfar_margin.engine import ENGINES, Engine, Settings, autocast_dtype, compute
from nearfar_margin.engine_plain import cosines

__all__ = ["CommonArguments", "MarginSoftmax"]


class CommonArguments(TypedDict, total=False):
    """What every loss of the family takes besides its own arguments, and hands on to :class:`MarginSoftmax`."""

    engine: Engine
    memory_budget: float | None
    reducer: nn.Module | None


class MarginSoftmax(ClassLoss):
    """A margin-softmax loss; a subclass declares :meth:`target`, :meth:`others`, or both.

    A whole loss::

        class CosFace(MarginSoftmax):
            def __init__(self, num_classes, embedding_size, *, margin=0.35, scale=64.0, **kwargs):
                super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
                self.margin = margin

            def target(self, t, rows):
                return t - self.margin

    :class:`~nearfar_margin.declaration.Declaration` says what an engine asks of these methods, and which attributes
    change the rest of the formula.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    scale : float
        (0..inf] What every logit is multiplied with.
    engine : {"auto", "plain", "chunked"}
        ``plain``: all logits at once; can be differentiated twice. ``chunked``: a chunk of the classes at a time, so
        that nothing of the size batch × classes is held but for one buffer, where the memory budget allows it; the
        same values and gradients. ``auto``: chunked as soon as there are logits enough for it to be faster.
    memory_budget : float, optional
        [MB, 0..inf] What the chunked engine may keep from the forward pass for the backward pass: where the cosines
        (batch × classes × 4 bytes) fit they are kept, which is fastest; where not they are computed a second time, and
        it needs less than 20 MB at any number of classes. 256 unless given.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    ``weight`` (num_classes, embedding_size) starts normal with a standard deviation of 0.01, as insightface's does; a
    subclass may make it (num_classes, k, embedding_size), k vectors of each class, of which the nearest counts. Its
    length does not enter the value, unless ``times_weight_norm`` is set.

    Under autocast the chunked engine multiplies matrices in autocast's dtype; the target's cosine, logarithms,
    exponentials and sums stay in float32.
    """

    scale: Tensor | float
    detached: bool = False
    times_norm: bool = False
    times_weight_norm: bool = False
    label_smoothing: float = 0.0
    separate: bool = False
    surveys: bool = False

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        scale: float,
        engine: Engine = "auto",
        memory_budget: float | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        self.scale = positive("scale", scale)
        check_choice(self, "engine", engine, ENGINES)
        self.engine: Engine = engine
        self.memory_budget = None if memory_budget is None else non_negative("memory_budget", memory_budget)
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.normal_(self.weight, std=0.01)
        self._products: torch.dtype | None = None

    def prepare(self, rows: Rows) -> Rows:
        """What the batch as a whole decides, once a call; nothing unless overridden."""
        return rows

    def survey(self, c: Tensor, rows: Rows) -> tuple[Tensor, ...]:
        """What :meth:`settle` wants the sums of; asked only where ``surveys`` is set."""
        return ()

    def settle(self, rows: Rows, *sums: Tensor) -> Rows:
        """What the sums over the other classes decide, once a call; asked only where ``surveys`` is set."""
        return rows

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        """ψ: what takes the place of a sample's cosine to its own class, (n,); the cosine unless overridden."""
        return t

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        """N: what takes the place of the cosines (n, k) to other classes; the cosines unless overridden."""
        return c

    def forward(self, embeddings: Tensor, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # seen, not changed
        # Work on a batch is taken out of autocast, so what it asks for is asked here.
        self._products = autocast_dtype(embeddings)
        try:
            return super().forward(embeddings, *args, **kwargs)
        finally:
            self._products = None

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        settings = Settings(self.engine, self.memory_budget, self._products)
        return compute(self, embeddings, self.weight, labels, settings)

    def scores(self, embeddings: Tensor) -> Tensor:
        x, w = self.common(embeddings, self.weight)
        (x, norm), (w, weight_norm) = unit(x), unit(w, -1)
        z = cosines(x, w) * self.scale
        z = z * norm[:, None] if self.times_norm else z
        return z * weight_norm if self.times_weight_norm else z

    def extra_repr(self) -> str:
        scale = self.scale.item() if isinstance(self.scale, Tensor) else self.scale
        engine = "" if self.engine == "auto" else f", engine={self.engine!r}"
        return f"{super().extra_repr()}, scale={scale:g}{engine}"
