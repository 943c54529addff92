"""What a part is called with when it is checked."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nearfar.spec import LossSpec, MinerSpec

__all__ = [
    "CLASSES",
    "DIM",
    "ChoiceMaker",
    "Scene",
    "batch",
    "boxes",
    "dense_logits",
    "rotated_boxes",
    "scenes_for",
    "to_choose",
    "to_match",
]

#: ``num_classes`` and ``embedding_size`` of parts that need them, unless their example says otherwise.
CLASSES = 6
DIM = 8

#: Inputs that say what is right rather than what was predicted: no gradient is asked of them.
_GIVEN = ("labels", "ref_labels", "targets")


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One call: tensors by the names of the inputs.

    Attributes
    ----------
    inputs
        In the order in which the spec names them; an embedding loss's may be followed by ``indices_tuple``,
        ``ref_emb``, ``ref_labels``.
    origin
        Source text that makes the inputs again, in the same order.
    """

    inputs: Mapping[str, Any]
    origin: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.inputs[name]

    def __contains__(self, name: str) -> bool:
        return name in self.inputs

    def replace(self, **inputs: Any) -> Scene:
        """The scene with other inputs, or more of them; None takes one out."""
        merged = {**self.inputs, **inputs}
        changed = ", ".join(inputs)
        origin = f"{self.origin}  # then with other {changed}" if self.origin else ""
        return dataclasses.replace(self, inputs={n: v for n, v in merged.items() if v is not None}, origin=origin)

    def to(self, dtype: torch.dtype) -> Scene:
        """The scene with its floating inputs in another dtype."""
        cast = {n: v.to(dtype) if _is_floating(v) else v for n, v in self.inputs.items()}
        return dataclasses.replace(self, inputs=cast)

    def learnable(self) -> dict[str, Tensor]:
        """The inputs a gradient is asked of: those that a network would have made."""
        return {n: v for n, v in self.inputs.items() if _is_floating(v) and not n.startswith(("target", *_GIVEN))}

    def with_gradients(self) -> Scene:
        """The scene with fresh leaves in place of what is learnable."""
        leaves = {n: v.detach().clone().requires_grad_() for n, v in self.learnable().items()}
        return dataclasses.replace(self, inputs={**self.inputs, **leaves})


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def batch(classes: int = 4, per_class: int = 3, dim: int = DIM, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings and labels for a check: ``per_class`` samples of each class, in random order.

    Returns
    -------
    embeddings : Tensor
        (classes · per_class, dim) float64, standard normal.
    labels : Tensor
        (classes · per_class,) int64, 0 … classes − 1.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    labels = labels[torch.randperm(len(labels), generator=generator)]
    return torch.randn(len(labels), dim, generator=generator, dtype=torch.float64), labels


def boxes(n: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predicted and target boxes ``xyxy`` for a check, (n, 4) float64 each, most of which overlap."""
    generator = torch.Generator().manual_seed(seed)

    def make() -> Tensor:
        corner = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 4
        size = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 4 + 1
        return torch.cat([corner, corner + size], dim=1)

    return make(), make()


def rotated_boxes(n: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predicted and target boxes ``cxcywhr`` for a check, (n, 5) float64 each; the angle in radians."""
    generator = torch.Generator().manual_seed(seed)

    def make() -> Tensor:
        centre = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 4
        size = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 4 + 1
        angle = (torch.rand(n, 1, generator=generator, dtype=torch.float64) - 0.5) * 3
        return torch.cat([centre, size, angle], dim=1)

    return make(), make()


def dense_logits(n: int = 8, classes: int = CLASSES, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) float64 and a target of 0 or 1 for each of them, for a check."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(n, classes, generator=generator, dtype=torch.float64) < 0.3).double()


def class_logits(n: int = 8, classes: int = CLASSES, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) float64 and a class id (n,) for each row, for a check."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (n,), generator=generator)


def unlabelled(n: int = 8, dim: int = DIM, seed: int = 0) -> tuple[Tensor]:
    """Embeddings alone, (n, dim) float64, for a check."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, dim, generator=generator, dtype=torch.float64),)


def views(n: int = 8, dim: int = DIM, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two views of the same samples, (n, dim) float64 each, for a check."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return first, first + 0.3 * torch.randn(n, dim, generator=generator, dtype=torch.float64)


def to_match(n: int = 8, classes: int = CLASSES, seed: int = 0) -> dict[str, Tensor]:
    """What a matcher may be called with, by name, for a check: n predictions round a third as many targets.

    Boxes are ``xyxy``, most of them near a target and some near none; ``logits`` are (n, classes), ``targets`` class
    ids; ``levels`` 0 and 1, ``strides`` 1 and 2.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    m = max(1, n // 3)
    corner = 10 * draw(m, 2)
    target = torch.cat([corner, corner + 2 + 6 * draw(m, 2)], 1)
    near = torch.randint(m, (n,), generator=generator)
    pred = target[near] + 4 * (draw(n, 4) - 0.5) * draw(n, 1)
    pred[:, 2:] = torch.maximum(pred[:, 2:], pred[:, :2] + 0.5)
    levels = torch.arange(n) % 2
    return {
        "pred_boxes": pred,
        "target_boxes": target,
        "logits": 2 * (draw(n, classes) - 0.5),
        "targets": torch.randint(classes, (m,), generator=generator),
        "levels": levels,
        "strides": 1 + levels,
    }


def to_choose(n: int = 8, seed: int = 0) -> dict[str, Tensor]:
    """What the terms are made of that a miner of elements is called with, for a check: n ``values``, whether each is of
    one of the ``positives``, and its group of ``groups``."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "values": torch.rand(n, generator=generator, dtype=torch.float64),
        "positives": torch.rand(n, generator=generator) < 0.2,
        "groups": torch.arange(n) * 2 // max(n, 1) * 5,
    }


#: Names of inputs → what makes them, the likeliest first: a loss is checked with the first that it takes.
_MAKERS: Mapping[tuple[str, ...], Sequence[Callable[..., tuple[Tensor, ...]]]] = {
    ("pred_boxes", "target_boxes"): (boxes, rotated_boxes),
    ("logits", "targets"): (dense_logits, class_logits),
    ("embeddings",): (unlabelled,),
    ("embeddings", "ref_emb"): (views,),
    ("first_view", "second_view"): (views,),
}


@dataclass(frozen=True, slots=True)
class Maker:
    """What makes the scenes of a loss: of ``n`` rows or so, from a seed."""

    names: tuple[str, ...]
    function: Callable[..., tuple[Tensor, ...]]
    source: str = field(default="")

    def __call__(self, n: int = 8, seed: int = 0) -> Scene:
        made = self.function(n=n, seed=seed)
        return Scene(dict(zip(self.names, made, strict=True)), f"{self.source}(n={n}, seed={seed})")


@dataclass(frozen=True, slots=True)
class ChoiceMaker:
    """What makes the scenes of a miner that is not on embeddings: by name, those inputs that it knows."""

    spec: MinerSpec

    def __call__(self, n: int = 8, seed: int = 0) -> Scene:
        if self.spec.produces == "elements":
            return Scene(to_choose(n, seed=seed))
        known = (*self.spec.inputs, *self.spec.optional_inputs)
        made = to_match(n, seed=seed)
        return Scene({name: made[name] for name in known if name in made})


def scenes_for(spec: LossSpec) -> list[Maker]:
    """What can make the inputs of a loss that is not on embeddings and labels; empty where nothing is known."""
    if spec.sample:
        module, _, name = spec.sample.partition(":")
        return [Maker(spec.inputs, getattr(importlib.import_module(module), name), f"{module}.{name}")]
    makers = _MAKERS.get(spec.inputs, ())
    return [Maker(spec.inputs, maker, f"nearfar.testing.scene.{maker.__name__}") for maker in makers]
