"""The base of the margin-softmax losses: cosines to the classes, a margin, a scale, cross entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.nn import ClassLoss
from nearfar.nn.arguments import positive
from nearfar.nn.vectors import unit
from nearfar_margin.declaration import Rows
from nearfar_margin.engine import plain

__all__ = ["MarginSoftmax"]


class MarginSoftmax(ClassLoss):
    """A margin-softmax loss; a subclass declares :meth:`target`, :meth:`others`, or both.

    A whole loss::

        class CosFace(MarginSoftmax):
            def __init__(self, num_classes, embedding_size, *, margin=0.35, scale=64.0, reducer=None):
                super().__init__(num_classes, embedding_size, scale=scale, reducer=reducer)
                self.margin = margin

            def target(self, t, rows):
                return t - self.margin

    :class:`~nearfar_margin.declaration.Declaration` says what an engine asks of these methods.

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
    ``weight`` (num_classes, embedding_size) starts normal with a standard deviation of 0.01, as insightface's
    does. Its length does not enter the value.
    """

    scale: Tensor | float
    detached: bool = False

    def __init__(
        self, num_classes: int, embedding_size: int, *, scale: float, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        self.scale = positive("scale", scale)
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.normal_(self.weight, std=0.01)

    def prepare(self, rows: Rows) -> Rows:
        """What the batch as a whole decides, once a call; nothing unless overridden."""
        return rows

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        """ψ: what takes the place of a sample's cosine to its own class, (n,); the cosine unless overridden."""
        return t

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        """N: what takes the place of the cosines (n, k) to other classes; the cosines unless overridden."""
        return c

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, w = self.common(embeddings, self.weight)
        return plain(self, x, w, labels)

    def scores(self, embeddings: Tensor) -> Tensor:
        x, w = self.common(embeddings, self.weight)
        return unit(x)[0] @ unit(w)[0].T * self.scale

    def extra_repr(self) -> str:
        scale = self.scale.item() if isinstance(self.scale, Tensor) else self.scale
        return f"{super().extra_repr()}, scale={scale:g}"
