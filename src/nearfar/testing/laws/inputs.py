"""Labels, shapes and layouts of every sort: each works, or is refused by name."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor

from nearfar.nn import EmbeddingLoss, Grades
from nearfar.testing.exercise import results, same
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.refusal import attempt
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject, refuse_chance

_LABELS = ("int32", "uint8", "negative", "huge", "floating", "out_of_range")


@law("loss", "miner", cases=lambda subject: _LABELS if subject.is_on_embeddings else ())
def labels(subject: Subject, case: str) -> None:
    """Labels of any dtype and any value give what the same classes give as 0, 1, 2 … in int64, or are refused by
    name; where there is a number of classes, labels beyond it are."""
    scene = subject.scene()
    given = scene["labels"]
    if case == "out_of_range":
        _check_range(subject, scene)
        return
    changed, what = {
        "int32": (given.to(torch.int32), "labels in int32"),
        "uint8": (given.to(torch.uint8), "labels in uint8"),
        "negative": (given - 7, "negative labels"),
        # Beyond what float64 tells apart, and so far beyond what fits that no table of classes is ever made.
        "huge": (given + 2**62, "labels from 2⁶² on"),
        "floating": ((given + 1) * 0.25, "labels 0.25, 0.5, 0.75 and 1"),
    }[case]
    expected = results(subject, subject.make(), scene)
    _equal_or_refused(subject, scene.replace(labels=changed), expected, what)


def _check_range(subject: Subject, scene: Scene) -> None:
    size = subject.part().named.get("num_classes")
    if not isinstance(size, int):
        raise NotApplicable("it has no number of classes")
    # −100 is what torch's cross entropy takes to mean: no label.
    for wrong in (size, -1, -100):
        changed = scene["labels"].clone()
        changed[0] = wrong
        _equal_or_refused(subject, scene.replace(labels=changed), None, f"a label {wrong} of {size} classes")


def _equal_or_refused(subject: Subject, scene: Scene, expected: list[Tensor] | None, what: str) -> None:
    """Whether a scene gives what is expected, or is refused by name; that alone where nothing is expected of it."""
    found = attempt(subject, scene, what, lambda: results(subject, subject.make(), scene))
    if found is None:
        return
    if expected is None:
        raise LawBroken(f"{what}: it is not refused; the result is {_said(found)}", scene)
    if not same(found, expected, relative=1e-9):
        raise LawBroken(f"{what}: the result is {_said(found)}, where it should be {_said(expected)}", scene)


def _said(found: list[Tensor]) -> str:
    if len(found) == 1 and found[0].numel() == 1:
        return f"{float(found[0]):.8g}"
    return f"tensors {', '.join(str(tuple(tensor.shape)) for tensor in found)}"


_SHAPES = ("lengths", "label_column", "flat_embeddings", "stacked_embeddings")


def _shape_cases(subject: Subject) -> Iterable[str]:
    if subject.kind == "miner" and not subject.is_on_embeddings:
        return ()  # predictions and targets may be as many as they like
    if not subject.is_on_embeddings:
        return ("lengths",) if len(subject.loss.inputs) > 1 else ()
    return (*_SHAPES, "reference_size", "reference_lengths") if subject.spec.reference else _SHAPES


@law("loss", "miner", cases=_shape_cases)
def shapes(subject: Subject, case: str) -> None:
    """Inputs whose shapes do not belong together are refused by name, and never broadcast."""
    if not subject.is_on_embeddings:
        _check_broadcast(subject)
        return
    for scene, what in _misshapen(subject, case):
        _equal_or_refused(subject, scene, None, what)


def _check_broadcast(subject: Subject) -> None:
    """Whether a loss takes one row of its second input for as many as its first has.

    One that matches predictions with targets may well take more of the one than of the other.
    """
    scene = subject.scene()
    first, second = list(scene.inputs)[:2]
    rows, other = len(scene[first]), scene[second]
    for count in (len(other) - 1, 1):
        fewer = scene.replace(**{second: other[:count]})
        what = f"{rows} {first} and {count} {second}"
        found = attempt(subject, fewer, what, functools.partial(subject.value, fewer))
        if found is not None and count == 1:
            repeated = scene.replace(**{second: other[:1].expand_as(other)})
            if torch.allclose(found, subject.value(repeated), rtol=1e-9):
                raise LawBroken(f"{what}: the one is taken for all {rows}", fewer)


def _misshapen(subject: Subject, case: str) -> Iterable[tuple[Scene, str]]:
    scene = subject.scene()
    given, labels = scene["embeddings"], scene["labels"]
    if case == "lengths":
        for count in (len(given) - 1, 1):
            yield scene.replace(labels=labels[:count]), f"{len(given)} embeddings and {count} labels"
    elif case == "label_column":
        yield scene.replace(labels=labels[:, None]), f"labels ({len(given)}, 1)"
    elif case == "flat_embeddings":
        yield scene.replace(embeddings=given[:, 0]), f"embeddings ({len(given)},)"
    elif case == "stacked_embeddings":
        yield scene.replace(embeddings=torch.stack([given, given], 1)), f"embeddings ({len(given)}, 2, dim)"
    else:
        scene = subject.with_reference(scene)
        reference, its_labels = scene["ref_emb"], scene["ref_labels"]
        if case == "reference_size":
            yield scene.replace(ref_emb=reference[:, :-1]), "ref_emb of another embedding size than embeddings"
        else:
            yield scene.replace(ref_labels=its_labels[:-1]), "one ref_labels fewer than ref_emb"


@law("loss")
def grades(subject: Subject) -> None:
    """Where the spec says so, labels may grade relevance: grades of 0 and 1 give what the classes give, and lower
    grades of positives something else. Elsewhere such labels are refused by name."""
    part = subject.make()
    if not subject.is_on_embeddings or not isinstance(part, EmbeddingLoss):
        raise NotApplicable("labels of its kind go through no class of nearfar's")
    scene = subject.scene()
    same_class = (scene["labels"][:, None] == scene["labels"]).double()
    graded = scene.replace(labels=Grades(same_class))
    if not subject.loss.graded:
        if attempt(subject, graded, "labels with grades", lambda: results(subject, part, graded)) is not None:
            raise LawBroken("labels with grades are not refused, and the spec does not say that it takes them", graded)
        return
    expected = results(subject, part, scene)
    found = results(subject, subject.make(), graded)
    if not same(found, expected, relative=1e-9):
        raise LawBroken(f"of grades 0 and 1 the result is {_said(found)}, and of classes {_said(expected)}", graded)
    drawn = torch.rand(same_class.shape, generator=torch.Generator().manual_seed(subject.seed), dtype=torch.float64)
    between = scene.replace(labels=Grades(same_class * (0.2 + 0.6 * drawn)))
    if same(results(subject, subject.make(), between), expected, relative=1e-9):
        raise LawBroken("positives of lower grades give what positives give: grades are not heeded", between)


@law("loss", "miner")
def layout(subject: Subject) -> None:
    """How the inputs lie in memory changes nothing."""
    refuse_chance(subject)
    scene = subject.scene()
    spread = {n: _spread(v) for n, v in scene.inputs.items()}
    found = results(subject, subject.make(), scene.replace(**spread))
    expected = results(subject, subject.make(), scene)
    if not same(found, expected, relative=1e-9):
        raise LawBroken(
            f"with inputs that are not contiguous the result is {_said(found)}, where it should be {_said(expected)}",
            scene,
        )


def _spread(tensor: Tensor) -> Tensor:
    """The same tensor by columns; a vector as every second place of a longer one."""
    if tensor.ndim < 2:
        return torch.stack([tensor, tensor], -1)[..., 0]
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)
