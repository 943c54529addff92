"""Distances that a part cannot know, to see what it does with one that it is given."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.nn.distances import Distance, Dot, Euclidean
from nearfar.testing.scene import Scene

__all__ = ["PLAIN", "Mirrored", "Stretched", "stretched"]


def _stretch(embeddings: Tensor) -> Tensor:
    factors = torch.linspace(0.3, 2.0, embeddings.shape[1])
    return embeddings * factors.to(embeddings)


def stretched(scene: Scene) -> Scene:
    """The scene with embeddings that are longer in some directions and shorter in others."""
    return scene.replace(**{name: _stretch(value) for name, value in scene.learnable().items()})


class Stretched(Distance):
    """Another distance of :func:`stretched` embeddings: other values, and another order of pairs."""

    def __init__(self, of: Distance) -> None:
        super().__init__(normalize=of.normalize_embeddings)
        self.of = of
        self.is_inverted, self.p, self.power = of.is_inverted, of.p, of.power

    def matrix(self, query: Tensor, reference: Tensor) -> Tensor:
        moved = _stretch(query)
        return self.of.matrix(moved, moved if reference is query else _stretch(reference))

    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        return self.of.pairwise(_stretch(query), _stretch(reference))


class Mirrored(Distance):
    """``top`` − d of a distance d: a similarity in the same order; where d is in [0, 2] and ``top`` is 1, in the range
    of a cosine."""

    is_inverted = True

    def __init__(self, of: Distance, top: float) -> None:
        super().__init__(normalize=of.normalize_embeddings)
        self.of, self.top = of, top

    def matrix(self, query: Tensor, reference: Tensor) -> Tensor:
        return self.top - self.of.matrix(query, reference)

    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        return self.top - self.of.pairwise(query, reference)


#: A distance and a similarity of embeddings as they are, such that those of stretched embeddings are as good.
PLAIN: tuple[Distance, ...] = (Euclidean(normalize=False), Dot())
