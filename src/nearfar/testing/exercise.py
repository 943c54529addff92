"""Use a part of any kind, as training would: a plain call, several calls in a row, what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.testing.scene import DIM, Scene, batch
from nearfar.testing.subject import Subject

__all__ = ["exercise", "results", "same", "tensors_in", "usual"]


def usual(subject: Subject, seed: int = 0, *, classes: int = 4, per_class: int = 3) -> Scene:
    """Inputs for a plain call of a part of any kind, ``classes · per_class`` rows."""
    if subject.kind in ("loss", "miner"):
        return subject.scene(classes=classes, per_class=per_class, seed=subject.seed + seed)
    if subject.kind == "distance":
        query, _ = subject.rows(classes * per_class, subject.seed + seed)
        reference, _ = subject.rows(classes * (per_class + 1), subject.seed + seed + 1000)
        return Scene({"query_emb": query, "ref_emb": reference})
    embeddings, labels = batch(classes, per_class, DIM, subject.seed + seed)
    return Scene({"loss_dict": _losses(subject, embeddings), "embeddings": embeddings, "labels": labels})


def _losses(subject: Subject, embeddings: Tensor) -> dict[str, Any]:
    """What a loss hands to a reducer: a value each of every embedding, and where it came from."""
    kind, values = subject.reducer.reduces[0], embeddings.square().sum(1)
    index = torch.arange(len(values))
    arity = {"element": 1, "pos_pair": 2, "neg_pair": 2, "triplet": 3}.get(kind, 0)
    entry: dict[str, Any] = {"losses": values, "reduction_type": kind, "divisor": len(values)}
    entry["indices"] = index if arity == 1 else (index,) * arity
    return {"loss": entry if arity else entry | {"losses": values.mean(), "indices": None}}


def results(subject: Subject, part: nn.Module, scene: Scene) -> list[Tensor]:
    """Every tensor of what a part returns, detached, in order."""
    return [tensor.detach().clone() for tensor in tensors_in(subject.call(part, scene))]


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in lists, tuples and mappings, in order; numbers as tensors too."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, int | float):
        return [torch.tensor(value)]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for item in value for tensor in tensors_in(item)] if isinstance(value, list | tuple) else []


def exercise(subject: Subject, part: nn.Module, seeds: Iterable[int]) -> list[Tensor]:
    """Call a part on a batch for each seed, and move its parameters after each call; what the calls returned.

    The parameters move by a fixed amount rather than down their gradient: whether that is right is another matter
    than whether what was learned is kept.
    """
    found: list[Tensor] = []
    for seed in seeds:
        found += results(subject, part, usual(subject, seed).with_gradients())
        with torch.no_grad():
            for number, parameter in enumerate(p for p in part.parameters() if p.requires_grad):
                steps = torch.arange(parameter.numel(), dtype=parameter.dtype).reshape(parameter.shape)
                parameter.add_(0.01 * torch.sin(steps + number + seed))
    return found


def same(first: list[Tensor], second: list[Tensor], *, relative: float = 0.0) -> bool:
    """Whether two lists of tensors are equal: to the bit, or to ``relative``; not a number equals itself."""
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=relative, atol=relative, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )
