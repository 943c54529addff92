"""Batches that lack what a part compares."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.refusal import attempt, settled
from nearfar.testing.scene import DIM, Scene
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants

#: Case → the class of each sample.
_BATCHES: Mapping[str, Sequence[int]] = {
    "empty": (),
    "one_sample": (0,),
    "two_samples": (0, 0),
    "small": (0, 0, 1),
    "one_class": (0,) * 6,
    "no_positives": (0, 1, 2, 3),
    "unbalanced": (0, 1, 1, 2, 2, 2, 2, 2),
}


def labelled(classes: Sequence[int], dim: int = DIM, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Standard normal embeddings (n, dim) float64 of samples of these classes, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(classes), dim, generator=generator, dtype=torch.float64)
    return embeddings, torch.tensor(classes, dtype=torch.int64)


def _scene(subject: Subject, make: Callable[..., tuple[Tensor, Tensor]], **given: Any) -> Scene:
    """What ``make`` makes of these arguments, for embeddings of the size that the part takes."""
    given |= {"dim": subject.scene()["embeddings"].shape[1], "seed": subject.seed}
    embeddings, labels = make(**given)
    written = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return Scene({"embeddings": embeddings, "labels": labels}, f"{__name__}.{make.__name__}({written})")


def _batches(subject: Subject) -> Iterable[str]:
    if not subject.is_on_embeddings:
        return ("empty", "one_row")
    return (*_BATCHES, "empty_reference", "foreign_reference") if subject.spec.reference else tuple(_BATCHES)


@law("loss", "miner", cases=_batches)
def batches(subject: Subject, case: str) -> None:
    """A batch that lacks what is compared — samples, classes, positives, negatives — gives a finite loss with a
    finite gradient or a selection that is true, or is refused by name; with a reference set and without."""
    check = settled if subject.kind == "loss" else _check_selection if subject.is_on_embeddings else _check_choice
    for scene, what in _lacking(subject, case):
        for variant, arguments in variants(subject).items():
            try:
                check(subject, scene, f"{what}, {variant}" if variant else what, **arguments)
            except LawBroken:
                # What fails on every batch is not for want of anything in this one: other laws are about that.
                if _works(subject, check, "ref_emb" in scene, arguments):
                    raise


#: Case of :func:`aftermath` → what stands in the first row of each input in turn.
_BROKEN: Mapping[str, float] = {"nan": math.nan, "inf": math.inf, "huge": 1e200}


def _lacks(subject: Subject) -> Iterable[str]:
    return (*(("empty", "one_sample", "one_class") if subject.is_on_embeddings else ("empty",)), *_BROKEN)


@law("loss", cases=_lacks)
def aftermath(subject: Subject, case: str) -> None:
    """After a batch that lacks something, or has a row with a NaN, an infinity or a number whose square is one, be it
    refused, ordinary ones cost something finite: nothing that is kept has been spoiled. Such a row is refused by name
    or costs something; it does not stop a loss."""
    scenes = _broken(subject.scene(), _BROKEN[case]) if case in _BROKEN else _lacking(subject, case)
    for scene, what in scenes:
        if case in _BROKEN:
            attempt(subject, scene, f"a batch that is {what}", functools.partial(subject.gradients, scene))
        part = subject.make()
        with contextlib.suppress(Exception):
            subject.call(part, scene)
        # What a batch leaves behind may take effect a call later, with the next renewal of what is kept.
        if not all(subject.value(subject.scene(), part).isfinite() for _ in range(3)):
            raise LawBroken(f"after a batch that is {what} an ordinary one costs something that is not finite", scene)


def _broken(scene: Scene, value: float) -> Iterable[tuple[Scene, str]]:
    """The scene with ``value`` in the first row of each input that a network would have made, one input at a time."""
    for name, tensor in scene.learnable().items():
        spoiled = tensor.clone()
        spoiled.view(len(spoiled), -1)[0, 0] = value
        what = "not finite" if not math.isfinite(value) else "hardly finite"
        yield scene.replace(**{name: spoiled}), f"{what} ({value} in a row of {name})"


def _works(subject: Subject, check: Callable[..., Any], with_reference: bool, arguments: dict[str, Any]) -> bool:
    """Whether a batch that lacks nothing passes."""
    scene = subject.scene()
    if with_reference and subject.is_on_embeddings:
        scene = subject.with_reference(scene)
    try:
        check(subject, scene, "", **arguments)
    except LawBroken:
        return False
    return True


def _lacking(subject: Subject, case: str) -> Iterable[tuple[Scene, str]]:
    """The scenes of a case, and what each is called in a message."""
    what = case.replace("_", " ")
    if not subject.is_on_embeddings:
        yield _rows(subject.scene(), 0 if case == "empty" else 1), what
    elif case == "empty_reference":
        yield subject.with_reference(subject.scene(), classes=0), "an empty reference set"
    elif case == "foreign_reference":
        scene = subject.with_reference(subject.scene(classes=2), classes=2)
        yield scene.replace(ref_labels=scene["ref_labels"] + 2), "a reference set without any class of the batch"
    else:
        scene = _scene(subject, labelled, classes=_BATCHES[case])
        yield scene, what
        if subject.spec.reference:
            yield subject.with_reference(scene), f"{what}, with a reference set"


def _rows(scene: Scene, count: int) -> Scene:
    """The first rows of every input of as many rows as the first."""
    rows = len(next(iter(scene.inputs.values())))
    cut = {n: v[:count] if v.ndim and len(v) == rows else v for n, v in scene.inputs.items()}
    return Scene(cut, f"tuple(x[:{count}] for x in {scene.origin})")


def _check_selection(subject: Subject, scene: Scene, what: str, **arguments: Any) -> None:
    """Whether what a miner selects of a batch exists, and is what it is said to be."""
    found = attempt(subject, scene, what, lambda: subject.call(subject.make(**arguments), scene), **arguments)
    if found is None:
        return
    if not isinstance(found, tuple) or len(found) not in (3, 4) or not all(isinstance(i, Tensor) for i in found):
        raise LawBroken(f"{what}: a selection is three or four index tensors", scene)
    shapes = [tuple(index.shape) for index in found]
    if any(len(shape) != 1 for shape in shapes) or shapes[0] != shapes[1] or shapes[-2] != shapes[-1]:
        raise LawBroken(f"{what}: the index tensors do not belong together; their shapes are {shapes}", scene)
    _check_sort(subject, scene, what, found[0], found[1], is_positive=True)
    _check_sort(subject, scene, what, found[0] if len(found) == 3 else found[2], found[-1], is_positive=False)


def _check_choice(subject: Subject, scene: Scene, what: str, **arguments: Any) -> None:
    """Whether what a matcher matches, or a miner of elements keeps, is there."""
    found = attempt(subject, scene, what, lambda: subject.call(subject.make(**arguments), scene), **arguments)
    if found is None:
        return
    first, second, *_ = map(len, scene.inputs.values())
    sizes = (first,) if subject.miner.produces == "elements" else (first, second, first)
    for index, size in zip(found, sizes, strict=False):
        if not _within(index, size):
            raise LawBroken(f"{what}: an index is out of range, or no integer", scene)


def _check_sort(subject: Subject, scene: Scene, what: str, anchor: Tensor, other: Tensor, *, is_positive: bool) -> None:
    labels = scene["labels"]
    reference = scene["ref_labels"] if "ref_labels" in scene else labels  # noqa: SIM401  # a scene is no mapping
    if not (_within(anchor, len(labels)) and _within(other, len(reference))):
        raise LawBroken(f"{what}: an index is out of range, or no integer", scene)
    wrong = (labels[anchor.long()] == reference[other.long()]) != is_positive
    if reference is labels and is_positive:
        wrong |= anchor == other
    # One that pairs samples by their place in the batch pays labels no heed.
    if wrong.any() and not subject.miner.order_dependent:
        sort = "positive" if is_positive else "negative"
        raise LawBroken(
            f"{what}: of the anchor {int(anchor[wrong][0])} it selects {int(other[wrong][0])} as a {sort}, which it "
            "is not",
            scene,
        )


def _within(index: Tensor, size: int) -> bool:
    if index.is_floating_point() or index.dtype == torch.bool:
        return False
    return not len(index) or bool((index.min() >= 0) & (index.max() < size))


@law("loss")
def one_pair(subject: Subject) -> None:
    """A selection of one positive and one negative is enough: the value or its gradient tells a positive opposite its
    anchor and a negative beside it from the reverse."""
    a, p, n = (torch.tensor([row]) for row in range(3))
    for selection in _tuples(subject, a, p, n):
        bad = _scene(subject, placed, positive=-1.0, negative=1.0).replace(indices_tuple=selection)
        good = _scene(subject, placed, positive=1.0, negative=-1.0).replace(indices_tuple=selection)
        for arguments in variants(subject).values():
            values = [float(subject.value(scene, **arguments)) for scene in (bad, good)]
            if values[0] == values[1] and not subject.gradients(bad, **arguments)["embeddings"].any():
                sort = "positive and one negative pair" if len(selection) == 4 else "triplet"
                raise LawBroken(
                    f"of one {sort} the value is {values[0]:.6g} and the gradient zero, whether the positive is "
                    "opposite its anchor and the negative beside it or the other way round",
                    bad,
                    **arguments,
                )


def placed(positive: float, negative: float, dim: int = DIM, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A batch that opens with an anchor, a positive and a negative, each of these 37° off so many times the anchor."""
    embeddings, labels = labelled((0, 0, 1, 1, 2, 2, 3, 3), dim, seed)
    anchor = embeddings[0]
    for row, side in ((1, positive), (2, negative)):
        aside = embeddings[row] - (embeddings[row] @ anchor) / (anchor @ anchor) * anchor
        embeddings[row] = side * anchor + 0.75 * anchor.norm() / aside.norm() * aside
    return embeddings, labels


def _tuples(subject: Subject, a: Tensor, p: Tensor, n: Tensor) -> list[tuple[Tensor, ...]]:
    """The indices as the loss takes them: as pairs, as triplets, or as either."""
    if not subject.is_on_embeddings:
        raise NotApplicable("it takes no selection")
    forms = {"pairs": (a, p, a, n), "triplets": (a, p, n)}
    found = [form for name, form in forms.items() if name in subject.loss.accepts]
    if not found:
        raise NotApplicable("it takes no selection")
    return found


@law("loss")
def empty_selection(subject: Subject) -> None:
    """A selection of nothing costs nothing and moves no embedding; a loss that makes weights of what is selected may
    weigh everything alike instead."""
    scene, none = subject.scene(), torch.empty(0, dtype=torch.int64)
    for selection in _tuples(subject, none, none, none):
        chosen = scene.replace(indices_tuple=selection)
        value = settled(subject, chosen, "an empty selection")
        if value is None:
            raise LawBroken("an empty selection is refused, though a miner may well find nothing", chosen)
        if "weights" in subject.loss.accepts and torch.allclose(value, subject.value(scene), rtol=1e-9):
            continue
        moved = subject.gradients(chosen)["embeddings"].abs().max()
        # What is left where the part learns something may be a penalty on that.
        if moved > 0 or (value != 0 and not list(subject.make().parameters())):
            raise LawBroken(
                f"an empty selection costs {float(value):.6g}, and the largest gradient is {float(moved):.6g}", chosen
            )
