"""Inputs arranged on purpose: perfect, collapsed, at random; and what a miner could have chosen of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nearfar.grammar import Part
from nearfar.testing.law import NotApplicable
from nearfar.testing.scene import Scene
from nearfar.testing.sorts import pairs, triplets
from nearfar.testing.subject import Subject

__all__ = ["VIEWS", "arranged", "classes_of", "hot", "labels_of", "perfect", "place", "renumbered", "subset"]

#: How the inputs of a loss on two views of the same samples are called.
VIEWS = (("embeddings", "ref_emb"), ("first_view", "second_view"))


def labels_of(sizes: tuple[int, ...], seed: int, *, in_order: bool = False) -> Tensor:
    """Labels of classes of these sizes, in random order or class by class."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    generator = torch.Generator().manual_seed(seed)
    return labels if in_order else labels[torch.randperm(len(labels), generator=generator)]


def arranged(how: str, labels: Tensor, dim: int, seed: int, *, jitter: float = 0.0) -> Tensor:
    """Embeddings (n, dim) float64 of typical length √dim, for labels of no more than ``dim`` classes.

    ``how`` is ``perfect``, each class in one point and the classes orthogonal; ``collapsed``, all in one point; or
    ``random``. Each coordinate then moves by ``jitter``, normal.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    if how == "random":
        return noise
    points = math.sqrt(dim) * torch.eye(dim, dtype=torch.float64)
    return points[labels if how == "perfect" else torch.zeros_like(labels)] + jitter * noise


def perfect(subject: Subject, scene: Scene) -> Scene:
    """A scene with what was predicted replaced by what is right.

    Each class in one point and the classes orthogonal; boxes equal to their targets; logits beyond doubt; the
    second view equal to the first.
    """
    inputs = subject.known_inputs
    if subject.is_on_embeddings:
        dim = scene["embeddings"].shape[1]
        named = [("embeddings", "labels")] + [("ref_emb", "ref_labels")] * ("ref_emb" in scene)
        return scene.replace(**{x: arranged("perfect", scene[y], dim, 0) for x, y in named})
    if inputs == ("logits", "targets"):
        return scene.replace(logits=1e3 * (2 * hot(scene["targets"], scene["logits"]) - 1))
    if len(inputs) != 2:
        raise NotApplicable(f"it is not known what is right for {', '.join(subject.loss.inputs)}")
    return scene.replace(**{inputs[0]: scene[inputs[1]].clone()})


def hot(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets in the shape and dtype of logits: class ids as one-hot rows, anything else as it is."""
    return (targets if targets.shape == logits.shape else nn.functional.one_hot(targets, logits.shape[1])).to(logits)


def classes_of(subject: Subject) -> int:
    """How many classes a part is made for; 0 where it is for any."""
    return _classes_of(subject.part())


def _classes_of(part: Part) -> int:
    found = part.named.get("num_classes", 0)
    if isinstance(found, int) and found:
        return found
    return max((_classes_of(inner) for inner in part.named.values() if isinstance(inner, Part)), default=0)


@torch.no_grad()
def place(part: nn.Module, points: Tensor) -> None:
    """Put the vectors that a part keeps for each class, if it does, at ``points`` (classes, dim)."""
    for tensor in [*part.parameters(), *part.buffers()]:
        for target in (points, points.T):
            if tensor.shape == target.shape and tensor.is_floating_point():
                tensor.copy_(target)


def subset(subject: Subject, scene: Scene, seed: int) -> tuple[Tensor, ...] | None:
    """Half of the pairs of a batch, or of its triplets, as the loss accepts; None where it accepts no choice."""
    if not subject.loss.accepts:
        return None
    generator = torch.Generator().manual_seed(seed)
    if subject.loss.accepts == ("triplets",):
        a, p, n = triplets(scene)
        kept = torch.randperm(len(a), generator=generator)[: (len(a) + 1) // 2]
        return a[kept], p[kept], n[kept]
    a1, p, a2, n = pairs(scene)
    positive = torch.randperm(len(a1), generator=generator)[: (len(a1) + 1) // 2]
    negative = torch.randperm(len(a2), generator=generator)[: (len(a2) + 1) // 2]
    return a1[positive], p[positive], a2[negative], n[negative]


def renumbered(indices: tuple[Tensor, ...], order: Tensor) -> tuple[Tensor, ...]:
    """A choice of a batch as one of the same batch put into ``order``."""
    place_of = torch.empty_like(order)
    place_of[order] = torch.arange(len(order))
    return tuple(place_of[index] for index in indices)
