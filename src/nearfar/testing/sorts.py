"""Inputs of every sort, so that what a part does shows somewhere; and what may be selected of a batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nearfar.testing.exercise import usual
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject

__all__ = ["every_sort", "pairs", "thinned", "triplets"]


def every_sort(subject: Subject) -> Iterator[Scene]:
    """Scenes for one call, the plainest first: spread out and in clusters, near and far, long and short, and with
    whatever else the spec says that the part takes."""
    yield usual(subject)
    if subject.kind in ("reducer", "distance"):
        yield usual(subject, 1, per_class=5)
        return
    if subject.kind == "loss":
        yield _uphill(subject)
    yield from _clusters(subject)
    yield usual(subject, 1, per_class=5)
    if subject.is_on_embeddings:
        scene = usual(subject, 2, per_class=4)
        if subject.spec.reference:
            yield subject.with_reference(scene)
        if subject.kind == "loss" and {"pairs", "triplets"} & set(subject.loss.accepts):
            form = pairs if "pairs" in subject.loss.accepts else triplets
            yield scene.replace(indices_tuple=thinned(form(scene), "negatives"))
    for factor in (0.1, 10.0):
        scene = usual(subject, 3)
        yield scene.replace(**{name: factor * value for name, value in scene.learnable().items()})


def _uphill(subject: Subject) -> Scene:
    """A scene moved to where the loss is high: as far from what is wanted as one can get."""
    scene = usual(subject, 5)
    gradients = subject.gradients(scene)
    steps = {n: v.norm() / gradients[n].norm().clamp_min(1e-12) for n, v in scene.learnable().items()}
    return scene.replace(**{n: v + 10 * steps[n] * gradients[n] for n, v in scene.learnable().items()})


def _clusters(subject: Subject) -> Iterator[Scene]:
    """Scenes in which what belongs together lies close together, closer each time."""
    scene = usual(subject, 4, per_class=4)
    if not subject.is_on_embeddings:
        *_, target = scene.inputs.values()
        for noise in (0.3, 0.01):
            close = {n: target + noise * v for n, v in scene.learnable().items() if v.shape == target.shape}
            yield scene.replace(**close)
        return
    embeddings, labels = scene["embeddings"], scene["labels"]
    # One centre a class, all of them in a row, and some classes beside each other.
    centres = embeddings[[int((labels == label).int().argmax()) for label in labels]]
    for noise in (0.3, 0.03):
        yield scene.replace(embeddings=centres + noise * embeddings)
    order = labels.argsort(stable=True)
    yield scene.replace(embeddings=(embeddings[:1] + 0.3 * embeddings)[order], labels=labels[order])


def pairs(scene: Scene) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(anchor, positive, anchor, negative)`` of every pair of a batch."""
    same = scene["labels"][:, None] == scene["labels"]
    itself = torch.eye(len(same), dtype=torch.bool)
    (a1, p), (a2, n) = torch.where(same & ~itself), torch.where(~same)
    return a1, p, a2, n


def triplets(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """``(anchor, positive, negative)`` of every triplet of a batch."""
    a1, p, a2, n = pairs(scene)
    pair, other = torch.where(a1[:, None] == a2)
    return a1[pair], p[pair], n[other]


def thinned(selection: tuple[Tensor, ...], what: str, seed: int = 0) -> tuple[Tensor, ...]:
    """A selection with some of the ``positives`` or ``negatives`` of each anchor taken out: never all, and not of each
    anchor as many."""
    if len(selection) == 4:
        a1, p, a2, n = selection
        kept = _some(a1, p, seed) if what == "positives" else _some(a2, n, seed)
        return (a1[kept], p[kept], a2, n) if what == "positives" else (a1, p, a2[kept], n[kept])
    a, p, n = selection
    kept = _some(a, p if what == "positives" else n, seed)
    return a[kept], p[kept], n[kept]


def _some(anchors: Tensor, others: Tensor, seed: int) -> Tensor:
    """Which entries are of those of their anchor's others that are drawn to be kept."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.zeros(len(anchors), dtype=torch.bool)
    for anchor in sorted({*anchors.tolist()}):
        own = anchors == anchor
        found = torch.tensor(sorted({*others[own].tolist()}))
        count = int(torch.randint(1, max(2, len(found)), (), generator=generator))
        chosen = found[torch.randperm(len(found), generator=generator)[:count]]
        kept |= own & torch.isin(others, chosen)
    return kept
