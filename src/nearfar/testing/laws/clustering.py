"""What a loss on embeddings is for: classes that are each in one place, away from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from nearfar.grammar import Part
from nearfar.testing.arranged import VIEWS, arranged, classes_of, labels_of
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.scene import DIM, Scene
from nearfar.testing.subject import Subject, refuse_chance

#: The sizes of the classes of a batch.
_SIZES = ((4, 4), (2, 2, 2, 2), (3, 3, 3), (1, 2, 3, 6))
#: Of a loss that learns: so many samples that no weights tell random classes apart.
_SIZES_LEARNT = ((2, 4, 6, 8, 10, 12),)
_STEPS, _RATE = 60, 0.05
_COSINE = "core.cosine"

#: Makes a scene by arrangement, jitter and seed.
_Make = Callable[[str, float, int], Scene]


@law("loss")
def clustering(subject: Subject) -> None:
    """Perfect clusters cost less than random embeddings and less than a batch in one point.

    Perfect is each class in one point, the classes orthogonal; all points the same, or with a jitter of a thousandth;
    for classes of equal and of unequal sizes, with a reference set and without. Two views are classes of two. What a
    loss keeps is trained on each arrangement first, in the same number of steps. Where the spec says that the loss
    ``collapses``, the batch in one point costs no more than perfect clusters.
    """
    learns = any(True for _ in (*subject.make().parameters(), *subject.make().buffers()))
    cost = _learnt if learns else lambda subject, scene: float(subject.value(scene))
    for what, make in _arrangements(subject, _SIZES_LEARNT if learns else _SIZES):
        for jitter in (0.0,) if learns else (0.0, 1e-3):
            scenes = {how: make(how, jitter, 0) for how in ("perfect", "random", "collapsed")}
            costs = {how: cost(subject, scene) for how, scene in scenes.items()}
            if found := _wrong(subject.loss.collapses, **costs):
                how, said = found
                raise LawBroken(
                    f"{what}, jitter {jitter:g}: perfect clusters cost {costs['perfect']:.6g}, {said}", scenes[how]
                )


@law("loss")
def similarity(subject: Subject) -> None:
    """On a similarity, where larger is nearer, as on a distance: perfect clusters cost no more than classes that are
    torn apart and share their places with others."""
    if not subject.is_on_embeddings or not {"*", _COSINE} & {*subject.loss.distances}:
        raise NotApplicable("it works on no similarity")
    if any(True for _ in subject.make().parameters()):
        raise NotApplicable("it has to learn first where its classes are")
    refuse_chance(subject)
    labels = torch.arange(4).repeat_interleave(3)
    scenes = {
        how: Scene({"embeddings": arranged("perfect", at, DIM, 0, jitter=1e-3), "labels": labels})
        for how, at in {"perfect": labels, "torn": torch.arange(3).repeat(4)}.items()
    }

    def upside_down(**arguments: Any) -> str:
        perfect, torn = (float(subject.value(scenes[how], **arguments)) for how in ("perfect", "torn"))
        return (
            "" if perfect <= torn + 1e-9 * abs(torn) else f"perfect clusters cost {perfect:.6g}, torn ones {torn:.6g}"
        )

    if upside_down():
        raise NotApplicable("on its default distance perfect clusters cost more already: see the law clustering")
    if said := upside_down(distance=Part(_COSINE)):
        raise LawBroken(f"on {_COSINE} {said}: distance.is_inverted says that larger is nearer", scenes["perfect"])


def _wrong(collapses: str, perfect: float, random: float, collapsed: float) -> tuple[str, str] | None:
    """Which arrangement costs what it should not, and that in words; None where all is as it should be."""
    least = 1e-6 * max(abs(perfect), abs(random), abs(collapsed))
    if not perfect < random - least:
        return "random", f"random embeddings {random:.6g}"
    said = f"a batch in one point {collapsed:.6g}"
    if collapses:
        is_cheap = collapsed <= perfect + 1e-3 * (random - perfect)
        return None if is_cheap else ("collapsed", f"{said}, but the spec says that the loss collapses")
    if not perfect < collapsed - least:
        return "collapsed", f"{said}; a loss that may fall together, beside another, says so: collapses="
    return None


def _arrangements(subject: Subject, all_sizes: tuple[tuple[int, ...], ...]) -> Iterator[tuple[str, _Make]]:
    """What is tried, in words, and what makes it."""
    if subject.loss.inputs in VIEWS:
        yield "two views", _views(subject)
        return
    if not subject.is_on_embeddings:
        raise NotApplicable("it is not on embeddings and labels")
    dim = subject.scene()["embeddings"].shape[1]
    for sizes in all_sizes:
        sizes = sizes[: min(dim, classes_of(subject) or dim)]
        make = _maker(sizes, dim, in_order=subject.loss.order_dependent, reference=False)
        if len(set(sizes)) > 1 and not _takes(subject, make("random", 0.0, 0)):
            sizes = (max(sizes),) * len(sizes)
            make = _maker(sizes, dim, in_order=subject.loss.order_dependent, reference=False)
        what = f"classes of {', '.join(map(str, sizes))}"
        yield what, make
        if subject.loss.reference:
            make = _maker(sizes, dim, in_order=subject.loss.order_dependent, reference=True)
            yield f"{what}, with a reference set", make


def _maker(sizes: tuple[int, ...], dim: int, *, in_order: bool, reference: bool) -> _Make:
    labels = labels_of(sizes, 0, in_order=in_order)
    ref_labels = labels_of(tuple(size + 1 for size in sizes), 1)

    def make(how: str, jitter: float, seed: int) -> Scene:
        inputs = {"embeddings": arranged(how, labels, dim, seed, jitter=jitter), "labels": labels}
        if reference:
            inputs["ref_emb"] = arranged(how, ref_labels, dim, seed + 100, jitter=jitter)
            inputs["ref_labels"] = ref_labels
        return Scene(inputs)

    return make


def _views(subject: Subject) -> _Make:
    dim = next(iter(subject.scene().inputs.values())).shape[1]

    def make(how: str, jitter: float, seed: int) -> Scene:
        points = torch.arange(dim)
        return Scene(
            {n: arranged(how, points, dim, seed + 100 * k, jitter=jitter) for k, n in enumerate(subject.loss.inputs)}
        )

    return make


def _takes(subject: Subject, scene: Scene) -> bool:
    """Whether a loss takes classes of unequal sizes at all."""
    try:
        subject.value(scene)
    except Exception:
        return False
    return True


def _learnt(subject: Subject, scene: Scene) -> float:
    """What a scene costs once a part has had the time to learn it: its parameters by Adam, and what calls change."""
    part = subject.make()
    parameters = [p for p in part.parameters() if p.requires_grad]
    # Not torch.optim: it loads the compiler, which takes seconds.
    mean, square = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for step in range(1, _STEPS + 1):
        value = subject.value(scene, part)
        if not parameters:
            continue
        gradients = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for p, g, m, v in zip(parameters, gradients, mean, square, strict=True):
                m.lerp_(g, 0.1)
                v.lerp_(g.square(), 0.001)
                p.sub_(_RATE * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
    with torch.no_grad():
        return float(subject.value(scene, part))
