"""Laws of losses on boxes, and of those on logits: whatever compares rows with rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nearfar.nn.reducers import NoReduction
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.moves import flipped, format_of, formatted, scaled, sized, translated
from nearfar.testing.refusal import settled
from nearfar.testing.scene import Scene
from nearfar.testing.search import for_all
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants

_BOXES = ("pred_boxes", "target_boxes")
_LOGITS = ("logits", "targets")
_SEEDS = st.integers(0, 2**16)
_ROUNDING = 1e-9


def _on_boxes(subject: Subject) -> Iterable[str]:
    return ("",) if subject.known_inputs == _BOXES else ()


def _on_logits(subject: Subject) -> Iterable[str]:
    return ("",) if subject.known_inputs == _LOGITS else ()


def _by_rows(subject: Subject) -> Iterable[str]:
    return ("",) if subject.known_inputs in (_BOXES, _LOGITS) else ()


# ---- what the value does not change with


_CHANGES = {"translation": translated, "scale": scaled, "flip": flipped}


@law("loss", cases=lambda subject: _CHANGES if _on_boxes(subject) else ())
def invariance(subject: Subject, case: str) -> None:
    """Moving, scaling or mirroring all boxes together leaves the value as it is where the spec says so, and only
    there."""
    change = _CHANGES[case]

    def values(seed: int, by: float, arguments: dict[str, Any]) -> tuple[Scene, float, float]:
        scene = _boxes(subject, seed)
        changed = scene.replace(**{name: change(scene[name], by) for name in _BOXES})
        first, second = (
            float(subject.value(formatted(subject, each, arguments), **arguments)) for each in (scene, changed)
        )
        return scene, first, second

    if case not in subject.loss.invariances:
        for seed in range(4):
            _, first, second = values(seed, 7.0 + seed, {})
            if not math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-6):
                return
        raise LawBroken(f"{case} of all boxes leaves the value as it is; say so: invariances=(…, {case!r})")

    def holds(arguments: dict[str, Any], seed: int, by: int) -> None:
        scene, first, second = values(seed, by, arguments)
        if not math.isclose(first, second, rel_tol=1e-7, abs_tol=1e-7):
            raise LawBroken(
                f"the spec says that {case} of all boxes leaves the value as it is, but {first:.9g} becomes "
                f"{second:.9g}",
                scene,
                **arguments,
            )

    for arguments in variants(subject).values():
        for_all(subject, partial(holds, arguments), examples=4, seed=_SEEDS, by=st.integers(-10, 10))


@law("loss", cases=lambda subject: _formats(subject) if _on_boxes(subject) else ())
def box_format(subject: Subject, case: str) -> None:
    """The same boxes written in another format cost the same."""
    arguments = variants(subject)[case]

    def holds(seed: int) -> None:
        scene = _boxes(subject, seed)
        plain, other = formatted(subject, scene, {}), formatted(subject, scene, arguments)
        first, second = float(subject.value(plain)), float(subject.value(other, **arguments))
        if not math.isclose(first, second, rel_tol=1e-9, abs_tol=_ROUNDING):
            raise LawBroken(f"boxes that cost {first:.9g} cost {second:.9g} with {case}", other, **arguments)

    for_all(subject, holds, examples=4, seed=_SEEDS)


def _formats(subject: Subject) -> list[str]:
    plain = format_of(subject, {})
    return [case for case, arguments in variants(subject).items() if format_of(subject, arguments) != plain]


# ---- how it grows


@law("loss", cases=_on_boxes)
def separation(subject: Subject) -> None:
    """The value goes on growing as boxes that share nothing move apart where the spec says so, and only there."""

    def values(seed: int, angle: float) -> list[float]:
        scene = _boxes(subject, seed)
        width = scene["pred_boxes"].shape[1]
        direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        shift = direction.repeat(2) if width == 4 else torch.cat([direction, torch.zeros(3)])
        # Coordinates are in 0 … 9, so that from a shift of 13 on nothing is shared.
        apart = (scene.replace(pred_boxes=scene["pred_boxes"] + by * shift) for by in (13, 17, 23))
        return [float(subject.value(formatted(subject, each, {}))) for each in apart]

    def grows(found: list[float]) -> bool:
        # By what float32 can tell: a value that comes to its bound has no gradient to speak of.
        return all(far > near + 1e-6 * abs(near) for near, far in pairwise(found))

    if not subject.loss.separates:
        if all(grows(values(seed, seed)) for seed in range(4)):
            raise LawBroken("it goes on growing as boxes move apart, and the spec does not say separates=True")
        return

    def holds(seed: int, angle: float) -> None:
        found = values(seed, angle)
        if not grows(found):
            listed = ", ".join(f"{value:.9g}" for value in found)
            raise LawBroken(
                f"the spec says separates=True, but 13, 17 and 23 from where they were boxes cost {listed}",
                _boxes(subject, seed),
            )

    for_all(subject, holds, examples=5, seed=_SEEDS, angle=st.floats(0, 6.25))


@law("loss", cases=_by_rows)
def least(subject: Subject) -> None:
    """Nothing costs less than what is perfect, where the spec names the optimum."""
    optimum = subject.loss.optimum
    if optimum is None:
        raise NotApplicable("it names no optimum")

    def holds(arguments: dict[str, Any], seed: int, nearness: float) -> None:
        scene = subject.scene(seed=seed)
        if subject.loss.inputs == _BOXES:
            pred, target = (scene[name] for name in _BOXES)
            scene = scene.replace(pred_boxes=target + nearness * (pred - target))
        else:
            scene = scene.replace(logits=scene["logits"] / nearness)
        scene = formatted(subject, scene, arguments)
        found = float(subject.value(scene, **arguments))
        if not found >= optimum - _ROUNDING:
            raise LawBroken(f"the optimum is {optimum:g} by the spec; this costs {found:.8g}", scene, **arguments)

    nearness = st.sampled_from([1.0, 0.3, 0.1, 0.01])
    for arguments in variants(subject).values():
        for_all(subject, partial(holds, arguments), examples=6, seed=_SEEDS, nearness=nearness)


@law("loss", cases=_on_boxes)
def towards_target(subject: Subject) -> None:
    """Against the gradient the predicted boxes come nearer to their targets."""
    scene = formatted(subject, _boxes(subject, subject.seed), {})
    target = scene["target_boxes"]
    boxes, lengths = scene["pred_boxes"], torch.linspace(0.5, 0.02, 40)
    for length in lengths.tolist():
        gradient = subject.gradients(scene.replace(pred_boxes=boxes))["pred_boxes"]
        size = gradient.norm(dim=1, keepdim=True)
        boxes = boxes - length * gradient / torch.where(size > 0, size, 1)
    before, after = (float((each - target).abs().mean()) for each in (scene["pred_boxes"], boxes))
    if not after < before:
        raise LawBroken(
            f"40 steps against the gradient take the boxes from {before:.4g} to {after:.4g} off their targets", scene
        )


@law("loss", cases=_on_boxes)
def inverted_boxes(subject: Subject) -> None:
    """Predicted boxes turned inside out give a finite loss with a finite gradient, and cost no less than perfect ones;
    or they are refused by name."""
    for seed in range(3):
        scene = _boxes(subject, subject.seed + seed)
        for sides in ((-1.0, 1.0), (1.0, -0.5), (-1.0, -1.0)):
            inverted = formatted(subject, scene.replace(pred_boxes=sized(scene["pred_boxes"], *sides)), {})
            what = f"predicted boxes with sides {sides[0]:g} and {sides[1]:g} times theirs"
            value, optimum = settled(subject, inverted, what), subject.loss.optimum
            if value is not None and optimum is not None and not float(value) >= optimum - _ROUNDING:
                raise LawBroken(f"{what} cost {float(value):.6g}, less than perfect ones", inverted)


# ---- rows


@law("loss", cases=_by_rows)
def row_order(subject: Subject) -> None:
    """The value does not depend on the order of the rows."""
    if subject.loss.order_dependent or subject.loss.random:
        raise NotApplicable("it declares that it depends on the order of the rows, or on chance")

    def holds(arguments: dict[str, Any], seed: int) -> None:
        scene = subject.scene(seed=seed)
        order = torch.randperm(len(scene[subject.loss.inputs[0]]), generator=torch.Generator().manual_seed(seed))
        other = scene.replace(**{name: value[order] for name, value in scene.inputs.items()})
        first, second = (
            float(subject.value(formatted(subject, each, arguments), **arguments)) for each in (scene, other)
        )
        if not math.isclose(first, second, rel_tol=1e-9, abs_tol=_ROUNDING):
            raise LawBroken(f"in another order of the rows {first:.9g} becomes {second:.9g}", scene, **arguments)

    for arguments in variants(subject).values():
        for_all(subject, partial(holds, arguments), examples=2, seed=_SEEDS)


@law("loss", cases=_by_rows)
def row_independence(subject: Subject) -> None:
    """Unreduced, each row has a loss of its own, which no other row changes."""
    if subject.loss.emits != ("element",) or "reducer" not in subject.signature:
        raise NotApplicable("it gives a reducer no value for each row")
    for case, arguments in variants(subject).items():
        scene = formatted(subject, subject.scene(), arguments)
        rows = len(scene[subject.loss.inputs[0]])
        found = subject.call(subject.make(**arguments, reducer=NoReduction()), scene)
        if not isinstance(found, Tensor) or found.shape != (rows,):
            what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise LawBroken(f"unreduced, {rows} rows give {what}", scene, **arguments)
        for row in range(3):
            single = scene.replace(**{name: value[row : row + 1] for name, value in scene.inputs.items()})
            alone = float(subject.call(subject.make(**arguments, reducer=NoReduction()), single))
            if not math.isclose(alone, float(found[row]), rel_tol=1e-9, abs_tol=_ROUNDING):
                raise LawBroken(
                    f"row {row} costs {float(found[row]):.9g} among others and {alone:.9g} alone"
                    f"{f', with {case}' if case else ''}",
                    scene,
                    **arguments,
                )


# ---- logits


@law("loss", cases=_on_logits)
def logit_direction(subject: Subject) -> None:
    """A larger logit of what is there never costs more, and all of them together cost less; a larger one of what is not
    there never costs less."""
    if subject.loss.detached:
        raise NotApplicable("by its spec its value is not what its gradient is of")

    def holds(seed: int, by: float) -> None:
        scene = subject.scene(classes=2, per_class=2, seed=seed)
        # Moderate ones: a loss that smooths labels wants no logit without bounds.
        scene = scene.replace(logits=(0.5 * scene["logits"]).clamp(-1.5, 1.5))
        logits, positive = scene["logits"], _positive(scene)
        before = float(subject.value(scene))
        for row, column in itertools.product(*map(range, logits.shape)):
            changed = logits.clone()
            changed[row, column] += by
            more = float(subject.value(scene.replace(logits=changed))) - before
            if more * (1 if positive[row, column] else -1) > _ROUNDING:
                sort, way = ("positive", "more") if positive[row, column] else ("negative", "less")
                raise LawBroken(f"a logit of a {sort} that is {by:.2g} larger costs {abs(more):.4g} {way}", scene)
        better = scene.replace(logits=logits + 0.5 * (2 * positive.double() - 1))
        if not float(subject.value(better)) < before:
            raise LawBroken("every logit 0.5 nearer to its target costs no less", scene)

    for_all(subject, holds, examples=3, seed=_SEEDS, by=st.floats(0.1, 0.5))


def _positive(scene: Scene) -> Tensor:
    """Which logits are of what is there."""
    logits, targets = scene["logits"], scene["targets"]
    if targets.shape == logits.shape:
        return targets > 0.5  # type: ignore[no-any-return]
    return torch.nn.functional.one_hot(targets, logits.shape[1]).bool()


# ---- shared


def _costs(subject: Subject, arguments: dict[str, Any], first: Scene, second: Scene) -> tuple[float, float]:
    """What two scenes cost, made for a part with these arguments."""
    one, two = (float(subject.value(formatted(subject, each, arguments), **arguments)) for each in (first, second))
    return one, two


def _boxes(subject: Subject, seed: int) -> Scene:
    scene = subject.scene(seed=seed)
    width = scene["pred_boxes"].shape[1]
    if width not in (4, 5):
        raise NotApplicable(f"its boxes are {width} numbers, neither xyxy nor cxcywhr")
    return scene
