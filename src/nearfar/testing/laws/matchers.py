"""Laws of matchers: of predictions with targets."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nearfar.build import make_part
from nearfar.grammar import parse_part
from nearfar.testing.definition import definition_of
from nearfar.testing.law import LawBroken, law
from nearfar.testing.scene import Scene
from nearfar.testing.search import for_all
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants

_SEEDS = st.integers(0, 2**16)
_SIZES = st.sampled_from([3, 8, 24])
#: Inputs that have a row for each target; all others have one for each prediction.
_OF_TARGETS = ("target_boxes", "targets", "target_groups")

Pairs = set[tuple[int, int]]


@law("miner", cases=variants)
def matched(subject: Subject, case: str = "") -> None:
    """Matches are int64 indices, of predictions and of targets, as many of both, and of predictions that are ignored:
    no prediction is there twice."""
    arguments = variants(subject)[case]

    def holds(n: int, seed: int) -> None:
        scene = _scene(subject, n, seed)
        found = subject.call(subject.make(**arguments), scene)
        if not isinstance(found, tuple) or len(found) != 3 or not all(isinstance(i, Tensor) for i in found):
            what = "three index tensors, of predictions, of targets and of what is ignored"
            raise LawBroken(f"matches are {what}", scene, **arguments)
        predictions, targets, ignored = found
        if {index.dtype for index in found} != {torch.int64} or predictions.shape != targets.shape:
            raise LawBroken("matches are int64 indices, as many of predictions as of targets", scene, **arguments)
        for index, name in ((predictions, "pred_boxes"), (targets, "target_boxes"), (ignored, "pred_boxes")):
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(scene[name]):
                raise LawBroken(f"an index is none of {len(scene[name])} {name}", scene, **arguments)
        if len(torch.unique(torch.cat((predictions, ignored)))) != len(predictions) + len(ignored):
            raise LawBroken("a prediction is matched twice, or matched and ignored", scene, **arguments)

    for_all(subject, holds, examples=6, n=_SIZES, seed=_SEEDS)


@law("miner", cases=variants)
def matched_as_defined(subject: Subject, case: str = "") -> None:
    """The matches are those of its definition, on every distance that it works on."""
    arguments = variants(subject)[case]
    definition_of(subject, arguments)
    names = [name for name in subject.miner.distances if _compares_boxes(subject, name)]

    def holds(n: int, seed: int, name: str) -> None:
        scene, given, define = _scene(subject, n, seed), arguments, definition_of(subject, arguments)
        if name:
            given = {**arguments, "distance": make_part(parse_part(name), "distance", subject.registry, {})}
            define = definition_of(subject, arguments, distance=_by_rows(subject, name))
        expected = set(define(**{key: value.tolist() for key, value in scene.inputs.items()}))
        on = f" on {name}" if name else ""
        _compare(_pairs(subject, scene, given), expected, f"by its definition{on} it matches", scene, given)

    for_all(subject, holds, examples=8, n=_SIZES, seed=_SEEDS, name=st.sampled_from(names or [""]))


@law("miner", cases=variants)
def matched_in_any_order(subject: Subject, case: str = "") -> None:
    """Predictions and targets in another order are matched with each other as before."""
    arguments = variants(subject)[case]

    def holds(n: int, seed: int) -> None:
        scene = _scene(subject, n, seed)
        generator = torch.Generator().manual_seed(seed)
        rows, columns = (
            torch.randperm(len(scene[name]), generator=generator) for name in ("pred_boxes", "target_boxes")
        )
        moved = {name: value[columns if name in _OF_TARGETS else rows] for name, value in scene.inputs.items()}
        found = {(int(rows[i]), int(columns[j])) for i, j in _pairs(subject, scene.replace(**moved), arguments)}
        _compare(found, _pairs(subject, scene, arguments), "in another order it matches", scene, arguments)

    for_all(subject, holds, examples=4, n=_SIZES, seed=_SEEDS)


@law("miner", cases=variants)
def matched_in_groups(subject: Subject, case: str = "") -> None:
    """Two images at once, told apart by groups, are matched as each by itself; one without a target has no match."""
    arguments = variants(subject)[case]

    def holds(n: int, seed: int) -> None:
        first, second = _scene(subject, n, seed), _scene(subject, n + 1, seed + 1)
        sizes = [[len(scene[name]) for scene in (first, second)] for name in ("pred_boxes", "target_boxes")]
        together = {name: torch.cat([first[name], second[name], first[name][:0]]) for name in first.inputs}
        bare = {name: first[name][:2] for name in first.inputs if name not in _OF_TARGETS}
        together |= {name: torch.cat([together[name], value]) for name, value in bare.items()}
        groups = {
            "pred_groups": torch.tensor([7] * sizes[0][0] + [2] * sizes[0][1] + [9] * len(bare["pred_boxes"])),
            "target_groups": torch.tensor([7] * sizes[1][0] + [2] * sizes[1][1]),
        }
        scene = Scene({**together, **groups})
        expected = _pairs(subject, first, arguments)
        expected |= {(i + sizes[0][0], j + sizes[1][0]) for i, j in _pairs(subject, second, arguments)}
        _compare(_pairs(subject, scene, arguments), expected, "of two images at once it matches", scene, arguments)

    for_all(subject, holds, examples=4, n=_SIZES, seed=_SEEDS)


@law("miner")
def matching_untouched(subject: Subject) -> None:
    """A call leaves its inputs as they are, and what it hands on has no history."""
    scene = _scene(subject, 12, subject.seed)
    before = {name: value.clone() for name, value in scene.inputs.items()}
    leaves = scene.with_gradients()
    part: Any = subject.make()
    options = {name: leaves[name] for name in leaves.inputs if name not in subject.miner.inputs}
    matches = part.match(*(leaves[name] for name in subject.miner.inputs), **options)
    for name, value in leaves.inputs.items():
        if not torch.equal(value.detach(), before[name]):
            raise LawBroken(f"the call changed {name} in place", scene)
    if matches.quality.requires_grad or (matches.weights is not None and matches.weights.requires_grad):
        raise LawBroken("its matches keep the graph of a gradient", scene)


# ---- shared


def _scene(subject: Subject, n: int, seed: int) -> Scene:
    return subject.scene(classes=1, per_class=n, seed=seed)


def _pairs(subject: Subject, scene: Scene, arguments: dict[str, Any]) -> Pairs:
    predictions, targets, _ = subject.call(subject.make(**arguments), scene)
    return set(zip(predictions.tolist(), targets.tolist(), strict=True))


def _compare(found: Pairs, expected: Pairs, how: str, scene: Scene, arguments: dict[str, Any]) -> None:
    if found != expected:
        sides = (found - expected, "more"), (expected - found, "fewer")
        listed = " and ".join(f"{len(each)} {what}, such as {min(each)}" for each, what in sides if each)
        raise LawBroken(f"{how} other than it should: {listed}", scene, **arguments)


def _compares_boxes(subject: Subject, name: str) -> bool:
    on: str = Subject(subject.registry.resolve("distance", name), subject.registry).distance.on
    return on == "boxes"


def _by_rows(subject: Subject, name: str) -> Any:
    """A distance as a function of two rows, small for near, by its own definition."""
    known = Subject(subject.registry.resolve("distance", name), subject.registry)
    define = definition_of(known, {})
    return (lambda x, y: -define(x, y)) if known.distance.similarity else define
