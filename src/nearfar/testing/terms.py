"""What a loss hands to a reducer, for checks: a dictionary of losses, or the terms that they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.terms import ARITY, MaterialTerms, Terms
from nearfar.testing.scene import Scene

__all__ = ["FusedTerms", "entry_of", "losses", "terms_of", "terms_scene", "with_values"]


def losses(kind: str, count: int = 12, batch: int = 6, seed: int = 0) -> tuple[dict[str, Any], Tensor, Tensor]:
    """What a reducer is called with, for a check: ``count`` values of a kind, some below zero, each from elsewhere.

    Returns
    -------
    loss_dict : dict
        One sub-loss, as pytorch-metric-learning's losses write it.
    embeddings, labels : Tensor
        (batch, 8) float64, which nothing depends on, and (batch,).
    """
    generator = torch.Generator().manual_seed(seed)
    arity, count = ARITY[kind], batch if kind == "element" else count
    values = torch.rand(count, generator=generator, dtype=torch.float64) * 2 - 0.5
    values += 0.1 * values.sign()  # nothing so near to zero that it changes its sign in half precision
    places = torch.randperm(batch**arity, generator=generator)[:count]
    indices = tuple(places // batch**power % batch for power in range(arity))
    labels = torch.randint(3, (batch,), generator=generator)
    return entry_of(kind, values, indices), torch.zeros(batch, 8, dtype=torch.float64), labels


def entry_of(kind: str, values: Any, indices: tuple[Tensor, ...] | None) -> dict[str, Any]:
    """One sub-loss as pytorch-metric-learning's losses write it; ``indices`` are as :class:`nearfar.Terms` has them."""
    count = len(values) if isinstance(values, Tensor) and values.ndim else 0
    only = indices[0] if indices is not None and len(indices) == 1 else indices
    return {"loss": {"losses": values, "indices": only, "reduction_type": kind, "divisor": count}}


def terms_scene(kind: str, *, batch: int = 6, seed: int = 0, scale: float = 1.0) -> Scene:
    """A call of a reducer with :func:`losses`; scaled, their values are above zero and up to so many times as large."""
    made = losses(kind, batch=batch, seed=seed)
    origin = f"nearfar.testing.terms.losses({kind!r}, batch={batch}, seed={seed})"
    scene = Scene(dict(zip(("loss_dict", "embeddings", "labels"), made, strict=True)), origin)
    if scale == 1:
        return scene
    return with_values(scene, scale * scene["loss_dict"]["loss"]["losses"].abs())


def with_values(scene: Scene, values: Tensor) -> Scene:
    """The scene with other values of its terms."""
    entry = scene["loss_dict"]["loss"]
    return scene.replace(loss_dict={"loss": {**entry, "losses": values}})


def terms_of(scene: Scene, **changed: Any) -> MaterialTerms:
    """What a call of a reducer is about, as terms; ``changed`` are fields of them."""
    entry = scene["loss_dict"]["loss"]
    indices = entry["indices"] if isinstance(entry["indices"], tuple) else (entry["indices"],)
    return MaterialTerms(
        entry["reduction_type"],
        entry["losses"],
        indices,
        num_anchors=len(scene["embeddings"]),
        labels=scene["labels"],
        **changed,
    )


class FusedTerms(Terms):
    """The values of other terms in blocks of five, from a leaf that stands for what they are computed from."""

    def __init__(self, terms: Terms, leaf: Tensor) -> None:
        self.kind, self.num_anchors = terms.kind, terms.num_anchors
        self.labels, self.normalizer = terms.labels, terms.normalizer
        self._made, self._leaf = terms, leaf

    @property
    def values(self) -> Tensor:
        return torch.cat([values for values, _ in self.blocks()])

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return self._made.indices

    def sum(self) -> Tensor:
        return self._leaf @ torch.ones_like(self._leaf)

    def count(self) -> Tensor:
        return self._made.count()

    def count_positive(self) -> Tensor:
        return self._made.count_positive()

    def sum_positive(self) -> Tensor:
        return self._leaf @ (self._leaf > 0).to(self._leaf)

    def blocks(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        split = [torch.split(index, 5) for index in self.indices]
        yield from zip(torch.split(self._leaf, 5), zip(*split, strict=True), strict=True)
