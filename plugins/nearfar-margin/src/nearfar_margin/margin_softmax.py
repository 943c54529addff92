"""The base of the margin-softmax losses: cosines to the classes, a margin, a scale, cross entropy."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import positive
from nearfar.nn.vectors import unit
from nearfar_margin.declaration import Rows
from nearfar_margin.engine import compute
from nearfar_margin.engine_loss import CommonArguments, EngineLoss
from nearfar_margin.engine_plain import cosines

__all__ = ["CommonArguments", "MarginSoftmax"]


class MarginSoftmax(EngineLoss):
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

    Notes
    -----
    ``label_smoothing``, ``smoothing``, ``engine``, ``memory_budget`` and ``reducer`` are those of
    :class:`~nearfar_margin.engine_loss.EngineLoss`.

    ``weight`` (num_classes, embedding_size) starts normal with a standard deviation of 0.01, as insightface's does; a
    subclass may make it (num_classes, k, embedding_size), k vectors of each class, of which the nearest counts. Its
    length does not enter the value, unless ``times_weight_norm`` is set.
    """

    scale: Tensor | float
    detached: bool = False
    times_norm: bool = False
    times_weight_norm: bool = False
    separate: bool = False
    surveys: bool = False

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        scale: float,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        if self.separate and self.label_smoothing:
            raise ArgumentError(
                f"{type(self).__name__} judges each class by itself: it has no probability that label_smoothing could "
                f"spread over the classes; got label_smoothing={self.label_smoothing}"
            )
        self.scale = positive("scale", scale)
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        self.draw(self.weight)

    def draw(self, weight: Tensor, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(weight, std=0.01, generator=generator)

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

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return compute(self, embeddings, self.weight, labels, self.settings)

    def scores(self, embeddings: Tensor) -> Tensor:
        x, w = self.common(embeddings, self.whole())
        (x, norm), (w, weight_norm) = unit(x), unit(w, -1)
        z = cosines(x, w) * self.scale
        z = z * norm[:, None] if self.times_norm else z
        return z * weight_norm if self.times_weight_norm else z

    def extra_repr(self) -> str:
        scale = self.scale.item() if isinstance(self.scale, Tensor) else self.scale
        return f"{super().extra_repr()}, scale={scale:g}"
