"""Inputs at the ends of what there is: values and gradients of losses stay finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.testing.arranged import VIEWS, hot
from nearfar.testing.forms import in_every_form
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.refusal import names_what_is_wrong
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject
from nearfar.told import told

_CASES = ("duplicates", "zeros", "opposite", "huge", "tiny")
_DTYPES = (torch.float32, torch.float64)

#: What is tried: in words, and the inputs that it changes.
_Changes = Iterator[tuple[str, dict[str, Tensor]]]


@law("loss", cases=_CASES)
def extremes(subject: Subject, case: str) -> None:
    """Duplicates, zeros, opposites, huge and tiny numbers give a finite value and a finite gradient, or are refused by
    name; in float32, and by default in float64.

    Of embeddings: duplicates within a class and across classes, and class weights among the embeddings, so that
    cosines round to 1 and beyond; zero vectors; cosines of −1; lengths of 1e±18 where the value does not depend on
    the length, of 1e4 and 1e-6 where it does. Of boxes: equal ones, ones without width or height, ones far apart,
    coordinates of 1e±6. Of logits: equal ones, zeros, ones as wrong and as right as can be, ±1e4 and ±1e-4.
    """

    def holds(arguments: dict[str, Any]) -> None:
        for dtype in _DTYPES[: 1 if arguments else 2]:
            scene = subject.scene().to(dtype)
            for what, changed in _tried(subject, case, scene, arguments):
                _check(subject, scene.replace(**changed), f"{what}, in {dtype}", arguments)

    in_every_form(subject, holds)


def _check(subject: Subject, scene: Scene, what: str, arguments: Mapping[str, Any]) -> None:
    part = subject.make(next(iter(scene.learnable().values())).dtype, **arguments)
    scene = scene.with_gradients()
    leaves = scene.learnable() | {f"part.{n}": p for n, p in part.named_parameters() if p.requires_grad}
    try:
        value = subject.value(scene, part)
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    except Exception as error:
        if isinstance(error, LawBroken) or not names_what_is_wrong(subject, error):
            raise LawBroken(f"{what}: {told(error)}", scene, **arguments) from error
        return
    if not value.isfinite():
        raise LawBroken(f"{what}: the value is {float(value.detach())}", scene, **arguments)
    for name, by_leaf in zip(leaves, found, strict=True):
        if by_leaf is not None and not by_leaf.isfinite().all():
            raise LawBroken(f"{what}: the gradient of {name} is not finite", scene, **arguments)


def _tried(subject: Subject, case: str, scene: Scene, arguments: Mapping[str, Any]) -> _Changes:
    inputs = subject.known_inputs
    if subject.is_on_embeddings:
        yield from _embeddings(subject, case, scene, arguments)
    elif inputs == ("pred_boxes", "target_boxes"):
        yield from _boxes(case, scene["pred_boxes"], scene["target_boxes"])
    elif inputs == ("logits", "targets"):
        yield from _logits(case, scene["logits"], scene["targets"])
    elif inputs in VIEWS:
        yield from _views(subject, case, *inputs, scene)
    else:
        raise NotApplicable(f"it is not known what {case} of {', '.join(subject.loss.inputs)} are")


# ---- embeddings


def _embeddings(subject: Subject, case: str, scene: Scene, arguments: Mapping[str, Any]) -> _Changes:
    """Changes of a batch, and where the loss takes a reference set the same changes of one."""
    other = subject.scene(seed=subject.seed + 1).to(scene["embeddings"].dtype)
    references = _batches(subject, case, other, arguments)
    for (what, embeddings), (_, ref_emb) in zip(_batches(subject, case, scene, arguments), references, strict=True):
        yield what, {"embeddings": embeddings}
        if subject.loss.reference:
            changed = {"embeddings": embeddings, "ref_emb": ref_emb, "ref_labels": other["labels"]}
            yield f"{what}, with a reference set of such", changed


def _batches(subject: Subject, case: str, scene: Scene, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    x, labels = scene["embeddings"], scene["labels"]
    if case == "duplicates":
        for points in _near_one(x.shape[1], x.dtype).view(-1, 4, x.shape[1]):
            yield "each class in one point", points[labels % 4]
        yield "two classes in one point", points[labels % 4 // 2]
        yield "all in one point", points[torch.zeros_like(labels)]
        for name, weights in _weights(subject.make(x.dtype, **arguments), x.shape[1]):
            classes = min(len(weights), int(labels.max()) + 1)
            yield f"embeddings that are rows of {name}", weights[labels % classes]
            yield f"embeddings that are rows of {name}, of other classes", weights[(labels + 1) % classes]
    elif case == "zeros":
        yield "one vector of zeros", x.index_fill(0, torch.tensor([0]), 0.0)
        yield "a class of zeros", x * (labels != labels[0])[:, None]
        yield "nothing but zeros", torch.zeros_like(x)
    elif case == "opposite":
        points, side = _near_one(x.shape[1], x.dtype), torch.ones(len(x), 1, dtype=x.dtype)
        for label in labels.unique():
            side[torch.where(labels == label)[0][::2]] = -1
        yield "each class on two opposite sides, classes in one place", side * points[:1]
        yield "each class on two opposite sides", side * points[labels % 4]
        yield "classes opposite each other", (1 - 2 * (labels % 2))[:, None] * points[:1]
        for name, weights in _weights(subject.make(x.dtype, **arguments), x.shape[1]):
            yield f"embeddings opposite to rows of {name}", -weights[labels % len(weights)]
    else:
        scale = {"huge": 1e4, "tiny": 1e-6} if subject.loss.uses_norm else {"huge": 1e18, "tiny": 1e-18}
        yield f"embeddings of length {scale[case]:g}", x * scale[case]
        yield f"one embedding of length {scale[case]:g}", torch.cat([x[:1] * scale[case], x[1:]])


def _near_one(dim: int, dtype: torch.dtype) -> Tensor:
    """Vectors (12, dim), most of which have a cosine with themselves that rounds to above 1, some to below it."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(512, dim, generator=generator, dtype=torch.float64).to(dtype)
    units = nn.functional.normalize(drawn)
    order = (units @ units.T).diagonal().argsort(descending=True)
    return drawn[torch.cat([order[:9], order[-3:]])]


def _weights(part: nn.Module, dim: int) -> Iterator[tuple[str, Tensor]]:
    """The parameters that are vectors in the space of the embeddings, one a row."""
    for name, parameter in part.named_parameters():
        if parameter.ndim == 2 and dim in parameter.shape:
            weights = parameter.detach()
            yield name, (weights if weights.shape[1] == dim else weights.T).clone()


# ---- other inputs


def _boxes(case: str, predicted: Tensor, target: Tensor) -> _Changes:
    numbers = predicted.shape[1]
    if numbers not in (4, 5):
        raise NotApplicable(f"it is not known what boxes of {numbers} numbers are")

    def scaled(boxes: Tensor, factor: float) -> Tensor:
        return torch.cat([boxes[:, :4] * factor, boxes[:, 4:]], 1)

    if case == "duplicates":
        yield "predictions equal to their targets", {"pred_boxes": target.clone()}
    elif case == "zeros":
        for name, sides in (("width", [2]), ("height", [3]), ("size", [2, 3])):
            flat = _flattened(target, sides)
            yield f"predictions of no {name}", {"pred_boxes": _flattened(predicted, sides)}
            yield f"targets of no {name}", {"target_boxes": flat}
            yield f"the same boxes of no {name}", {"pred_boxes": flat, "target_boxes": flat.clone()}
    elif case == "opposite":
        centre_only = torch.tensor([1.0, 1, numbers == 4, numbers == 4, 0])[:numbers]
        for far in (1e2, 1e4):
            yield f"boxes {far:g} apart", {"pred_boxes": predicted + far * centre_only.to(predicted)}
    else:
        size = 1e6 if case == "huge" else 1e-6
        yield f"boxes of size {size:g}", {"pred_boxes": scaled(predicted, size), "target_boxes": scaled(target, size)}


def _flattened(boxes: Tensor, sides: list[int]) -> Tensor:
    """Boxes without extent: xyxy where they have four numbers, cxcywhr where five."""
    boxes = boxes.clone()
    for side in sides:
        boxes[:, side] = boxes[:, side - 2] if boxes.shape[1] == 4 else 0
    return boxes


def _logits(case: str, logits: Tensor, targets: Tensor) -> _Changes:
    if case in ("duplicates", "zeros"):
        same = torch.zeros_like(logits) if case == "zeros" else logits[:1].expand_as(logits)
        yield "the same logits for all", {"logits": same.clone()}
        return
    if case == "opposite":
        side = 2 * hot(targets, logits) - 1
        for size in (20, 100):
            yield f"logits of ±{size}, all wrong", {"logits": -size * side}
            yield f"logits of ±{size}, all right", {"logits": size * side}
        return
    yield f"{case} logits", {"logits": logits.sign() * (1e4 if case == "huge" else 1e-4)}


def _views(subject: Subject, case: str, first: str, second: str, scene: Scene) -> _Changes:
    x = scene[first]
    if case == "duplicates":
        yield "equal views", {second: x.clone()}
        yield "all in one point", {name: x[:1].expand_as(x).clone() for name in (first, second)}
    elif case == "zeros":
        yield "one view of zeros", {second: torch.zeros_like(x)}
        yield "nothing but zeros", {name: torch.zeros_like(x) for name in (first, second)}
    elif case == "opposite":
        yield "views opposite each other", {second: -x}
    else:
        scale = {"huge": 1e4, "tiny": 1e-6} if subject.loss.uses_norm else {"huge": 1e18, "tiny": 1e-18}
        yield f"embeddings of length {scale[case]:g}", {n: scene[n] * scale[case] for n in (first, second)}
