"""Values and gradients of losses, in float64."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.testing.arranged import arranged, classes_of, perfect, place
from nearfar.testing.definition import definition_of
from nearfar.testing.exercise import exercise
from nearfar.testing.frozen import Frozen
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.scene import Scene
from nearfar.testing.search import for_all, roomy_scenes
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants

#: Steps of the finite differences, the likeliest first: too long a step meets a kink or the curvature, too short a
#: one rounding. A gradient that is right agrees at one of them, a wrong one at none.
_STEPS = (1e-6, 1e-5, 1e-7, 1e-4)
_AGREES = 1e-4
_ROUNDING = 100 * torch.finfo(torch.float64).eps


@law("loss", cases=variants)
def gradient(subject: Subject, case: str = "") -> None:
    """The gradient is that of the value, by finite differences in float64; where the spec says that something is
    detached, with that held constant.

    By inputs, reference set and parameters; the values of a loss are made anew each time, so that what it keeps does
    not matter.
    """
    arguments = variants(subject)[case]

    def holds(scene: Scene) -> None:
        for each in _with_and_without_reference(subject, scene):
            found = _disagreement(subject, each, arguments, frozen=bool(subject.loss.detached))
            if found:
                hint = "" if subject.loss.detached else "; a loss that detaches something on purpose says so: detached="
                raise LawBroken(found + hint, each, **arguments)

    for_all(subject, holds, examples=2 if case else 3, scene=roomy_scenes(subject))


def _with_and_without_reference(subject: Subject, scene: Scene) -> Iterator[Scene]:
    yield scene
    if subject.loss.reference and subject.is_on_embeddings:
        yield subject.with_reference(scene)


@law("loss")
def detached(subject: Subject) -> None:
    """A loss that says it detaches something has, in one of its forms, a gradient that is not that of its value."""
    if not subject.loss.detached:
        raise NotApplicable("it says that nothing is detached")
    for arguments in variants(subject).values():
        for seed in range(3):
            if _disagreement(subject, subject.scene(seed=subject.seed + seed), arguments, frozen=False):
                return
    raise LawBroken(
        f"the spec says detached={subject.loss.detached!r}, but the gradient is that of the value in every form"
    )


def _disagreement(subject: Subject, scene: Scene, arguments: Mapping[str, Any], *, frozen: bool) -> str:
    """Where gradient and finite differences part, in words; empty where they agree."""
    frame = Frozen() if frozen else contextlib.nullcontext()

    def value(name: str = "", step: Tensor | None = None) -> float:
        part, moved = subject.make(**arguments), scene
        if step is not None and name.startswith("part."):
            part.get_parameter(name.removeprefix("part.")).data.add_(step)
        elif step is not None:
            moved = scene.replace(**{name: scene[name] + step})
        moved = moved.with_gradients()
        with frame:
            found = subject.value(moved, part)
        if found.dtype != torch.float64:
            raise LawBroken(
                f"of float64 inputs the value is {found.dtype}: it was rounded on the way", scene, **arguments
            )
        return float(found.detach())

    start = value()
    if frozen and value() != start:
        return (
            "what it detaches cannot be held constant: it writes into a tensor through another that shares its memory"
        )
    generator = torch.Generator().manual_seed(subject.seed)
    for name, given in subject.gradients(scene, **arguments).items():
        direction = torch.randn(given.shape, generator=generator, dtype=torch.float64)
        along, size = float((given * direction).sum()), float(given.abs().max()) if given.numel() else 0.0
        slopes = []
        for step in _STEPS:
            slopes.append((value(name, step * direction) - value(name, -step * direction)) / (2 * step))
            noise = _ROUNDING * max(abs(start), 1.0) / step
            if abs(along - slopes[-1]) <= _AGREES * max(abs(slopes[-1]), size) + noise:
                break
        else:
            return f"along a direction of {name} the gradient is {along:.8g}, and the value changes by {slopes[0]:.8g}"
    return ""


@law("loss")
def descent(subject: Subject) -> None:
    """A few steps against the gradient make the loss of a random batch smaller."""
    for seed in range(3):
        scene = subject.scene(seed=subject.seed + seed)
        first = best = float(subject.value(scene))
        lengths = {name: x.norm().clamp_min(1) for name, x in scene.learnable().items()}
        for step in (0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-4, 1e-5):
            gradients = subject.gradients(scene)
            norms = {name: gradients[name].norm() for name in lengths}
            if not any(norms.values()):
                break
            moved = scene.replace(
                **{n: x - step * lengths[n] * gradients[n] / norms[n] for n, x in scene.learnable().items() if norms[n]}
            )
            value = float(subject.value(moved))
            if value < best:
                best, scene = value, moved
        if best < first:
            return
    raise LawBroken(f"steps against the gradient of a random batch never lead below {first:.8g}", scene)


@law("loss")
def optimum(subject: Subject) -> None:
    """At perfect inputs the loss has the value that the spec calls its optimum, and a gradient of zero."""
    declared = subject.loss.optimum
    if declared is None:
        raise NotApplicable("it names no optimum")
    for scene in (perfect(subject, each) for each in _with_and_without_reference(subject, subject.scene())):
        part = subject.make()
        if subject.is_on_embeddings:
            place(part, _perfect_points(subject, scene))
        found = float(subject.value(scene, _copy_of(subject, part)))
        if not abs(found - declared) <= 1e-9 * max(abs(declared), 1):
            raise LawBroken(f"the spec names the optimum {declared:g}; a perfect input costs {found:.8g}", scene)
        for name, by_input in subject.gradients(scene, part).items():
            if name in scene and not float(by_input.abs().max()) <= 1e-9:
                raise LawBroken(
                    f"at the optimum the gradient of {name} is zero; its largest entry is {by_input.abs().max():.3g}",
                    scene,
                )


def _perfect_points(subject: Subject, scene: Scene) -> Tensor:
    """Where each class is in a perfect scene, (classes, dim)."""
    dim, classes = scene["embeddings"].shape[1], classes_of(subject)
    if classes > dim:
        raise NotApplicable(f"{classes} classes are not orthogonal in {dim} dimensions")
    return arranged("perfect", torch.arange(classes), dim, 0)


def _copy_of(subject: Subject, part: nn.Module) -> nn.Module:
    """A second part in the same state: one that keeps something changes with each call."""
    other = subject.make()
    other.load_state_dict(part.state_dict())
    return other


@law("loss", cases=lambda subject: variants(subject) if subject.spec.definition else ("",))
def definition(subject: Subject, case: str = "") -> None:
    """The value is that of the definition which the spec names, in float64, when the loss is new and when it has
    learned.

    The definition gets the inputs in order and, by name, what its signature names of: ``ref_emb``, ``ref_labels``,
    the arguments the part was made with, its parameters and its buffers as they are when it is called.
    """
    arguments = variants(subject)[case]
    definition_of(subject, arguments)  # not applicable where there is none
    learns = any(True for _ in _state(subject.make(**arguments)))

    def holds(scene: Scene) -> None:
        for each, calls in itertools.product(_with_and_without_reference(subject, scene), (0, 3) if learns else (0,)):
            _compare_with_definition(subject, each, arguments, calls)

    for_all(subject, holds, examples=3, scene=roomy_scenes(subject))


def _compare_with_definition(subject: Subject, scene: Scene, arguments: Mapping[str, Any], calls: int) -> None:
    """Whether a loss that was called and moved so often before gives what its definition does."""
    part = subject.make(**arguments)
    exercise(subject, part, range(calls))
    kept = {name.replace(".", "_"): tensor.detach().clone() for name, tensor in _state(part)}
    taken = subject.loss.inputs
    references = {name: scene.inputs.get(name) for name in ("ref_emb", "ref_labels") if name not in taken}
    function = definition_of(subject, arguments, **kept, **references)
    expected = float(function(*(scene[name] for name in subject.loss.inputs)))
    found = float(subject.value(scene, part))
    if not abs(found - expected) <= 1e-8 * max(abs(expected), 1):
        message = f"the value is {found:.10g}, by its definition {expected:.10g}"
        if calls:
            message += f" after {calls} calls, in which its parameters and buffers moved; it is given them by name"
        raise LawBroken(message, scene, **arguments)


def _state(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from part.named_parameters()
    yield from part.named_buffers()
