"""What a call leaves behind: one batch after another, one backward pass after another."""

from __future__ import annotations

import copy
import functools
import random
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.build import make_part
from nearfar.testing.arranged import classes_of, subset
from nearfar.testing.exercise import exercise, results, same, tensors_in, usual
from nearfar.testing.law import LawBroken, law
from nearfar.testing.refusal import attempt
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject, seeded
from nearfar.testing.variants import variants

_KINDS = ("loss", "miner", "reducer", "distance")


@law("loss")
def repeated(subject: Subject) -> None:
    """A call has a graph of its own: a backward pass works after that of an earlier batch, and none reaches an earlier
    batch."""
    first, second = (subject.scene(seed=subject.seed + i).with_gradients() for i in (0, 1))
    part = subject.make()
    _backward(subject.value(first, part), part)
    later = subject.value(second, part)
    try:
        _backward(later, part)
    except RuntimeError as error:
        raise LawBroken(
            f"the backward pass of the second batch fails: {str(error).partition('.')[0]}", second
        ) from error
    part = subject.make()
    subject.value(first, part)
    reached = _gradients(subject.value(second, part), first.learnable())
    for name, gradient in reached.items():
        if gradient is not None:
            raise LawBroken(f"the gradient of the second batch's value reaches {name} of the first", second)


def _backward(value: Tensor, part: nn.Module) -> None:
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]
    part.zero_grad()


def _gradients(value: Tensor, leaves: dict[str, Tensor], *, keep: bool = False) -> dict[str, Tensor | None]:
    if not value.requires_grad or not leaves:
        return dict.fromkeys(leaves)
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, retain_graph=keep)
    return dict(zip(leaves, found, strict=True))


@law("loss")
def backward_twice(subject: Subject) -> None:
    """Two backward passes through one graph that is kept give the same gradient."""
    scene, part = subject.scene().with_gradients(), subject.make()
    leaves = scene.learnable() | {f"part.{n}": p for n, p in part.named_parameters() if p.requires_grad}
    value = subject.value(scene, part)
    first = _gradients(value, leaves, keep=True)
    second = _gradients(value, leaves)
    for name, gradient in first.items():
        again = second[name]
        if gradient is not None and not (again is not None and torch.equal(gradient, again)):
            raise LawBroken(f"the second backward pass through a kept graph gives {name} another gradient", scene)


@law("loss", "miner")
def growth(subject: Subject) -> None:
    """Batches may grow and shrink: a part that earlier ones have not changed gives what a new one does, any other
    something finite; or it refuses by name what is too large for it."""
    part = subject.make()
    remembers = _learns_from_calls(subject)
    for number, (classes, per_class) in enumerate([(3, 2), (4, 3), (4, 6), (2, 3)]):
        scene = usual(subject, number, classes=classes, per_class=per_class)
        rows = len(next(iter(scene.inputs.values())))
        what = f"batch {number + 1}, of {rows} rows"
        found = attempt(subject, scene, what, functools.partial(results, subject, part, scene))
        if found is None:
            continue
        if remembers:
            wrong = not all(tensor.double().isfinite().all() for tensor in found)
            asked = "something finite"
        else:
            expected = results(subject, subject.make(), scene)
            wrong, asked = not same(found, expected, relative=1e-9), f"{_said(expected)}, as of a new part"
        if wrong:
            raise LawBroken(f"{what}, gives {_said(found)}; it should give {asked}", scene)


def _learns_from_calls(subject: Subject) -> bool:
    """Whether calls change what the part saves, or what the same call gives after another."""
    part, scene = subject.make(), usual(subject)
    before = [tensor.clone() for tensor in part.state_dict().values() if isinstance(tensor, Tensor)]
    first, _ = results(subject, part, scene), results(subject, part, usual(subject, 1))
    after = [tensor for tensor in part.state_dict().values() if isinstance(tensor, Tensor)]
    return not same(before, after) or not same(first, results(subject, part, scene))


def _said(found: list[Tensor]) -> str:
    return f"{float(found[0]):.17g}" if len(found) == 1 and found[0].numel() == 1 else "another selection"


@law("loss", "reducer", "distance")
def inputs_untouched(subject: Subject) -> None:
    """A call, and its backward pass, leave their inputs as they were."""
    scenes = [usual(subject)]
    if subject.is_on_embeddings:
        scenes = [_from_one(subject, scenes[0])]
        if subject.spec.reference:
            scenes.append(subject.with_reference(scenes[0]))
        if (chosen := subset(subject, scenes[0], 0)) is not None:
            scenes.append(scenes[0].replace(indices_tuple=chosen))
    for scene in scenes:
        before = copy.deepcopy(dict(scene.inputs))
        subject.call(subject.make(), scene)
        _compare_inputs(before, scene, "a call")
        if subject.kind == "loss":
            leaves = scene.with_gradients()
            value = subject.value(leaves)
            _gradients(value, leaves.learnable())
            _compare_inputs(before, leaves, "a backward pass")


def _from_one(subject: Subject, scene: Scene) -> Scene:
    """The scene with labels that do not start from 0, where there are classes enough: taking the least away shows."""
    classes = classes_of(subject)
    room = not classes or int(scene["labels"].max()) + 1 < classes
    return scene.replace(labels=scene["labels"] + 1) if room else scene


def _compare_inputs(before: dict[str, Any], scene: Scene, what: str) -> None:
    for name, value in scene.inputs.items():
        if not same(tensors_in(before[name]), [tensor.detach() for tensor in tensors_in(value)]):
            raise LawBroken(f"{what} changes its input {name}", scene)


@law(*_KINDS)
def globals_untouched(subject: Subject) -> None:
    """Neither making a part nor calling it changes anything outside: no default, no mode, no warning filter. Random
    numbers may be drawn where it is made, and where its spec says that it is random; no generator is started anew."""
    _compare_globals(*_making(subject, 1), "making it")
    ends = [_making(subject, seed)[1] for seed in (2, 3)]
    for name in _GENERATORS:
        if repr(ends[0][name]) == repr(ends[1][name]):
            raise LawBroken(
                f"making it starts {name} anew, for everybody; draw from a torch.Generator of the part's own"
            )
    part, seen = subject.make(), []
    part.register_forward_pre_hook(lambda *_: seen.append(_globals(draw=True)))
    part.register_forward_hook(lambda *_: seen.append(_globals()))
    subject.call(part, usual(subject).with_gradients())
    _compare_globals(seen[0], seen[-1], "a call", drawing=subject.spec.random, scene=usual(subject))


def _making(subject: Subject, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything global before a part is made and after it, random generators started from ``seed``."""
    with seeded(seed), warnings.catch_warnings():
        before = _globals(draw=True)
        make_part(subject.part(), subject.kind, subject.registry, {})
        return before, _globals()


def _compare_globals(
    before: dict[str, Any],
    after: dict[str, Any],
    what: str,
    *,
    drawing: bool = True,
    scene: Scene | None = None,
) -> None:
    for name, value in before.items():
        if name in _GENERATORS and drawing:
            continue
        if repr(value) != repr(after[name]):
            hint = "; a part that draws random numbers says so: random=True" if name in _GENERATORS else ""
            raise LawBroken(f"{what} changes {name}{hint}", scene)


_GENERATORS = ("torch's random generator", "numpy's random generator", "Python's random generator")


def _globals(*, draw: bool = False) -> dict[str, Any]:
    """Everything global that a call might change, in the words of a message.

    With a number drawn first, so that generators started anew in the call do not end where they were.
    """
    if draw:
        torch.rand(1)
        np.random.rand()
        random.random()
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    return {
        "torch's random generator": torch.get_rng_state().tolist(),
        "numpy's random generator": (state["state"]["key"].tolist(), state["state"]["pos"]),
        "Python's random generator": random.getstate(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "whether inference mode is on": torch.is_inference_mode_enabled(),
        "whether autocast is on": torch.is_autocast_enabled("cpu"),
        "whether torch is to be deterministic": torch.are_deterministic_algorithms_enabled(),
        "whether anomalies are looked for": torch.is_anomaly_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "numpy's handling of floating-point errors": np.geterr(),
        "the filters of warnings": list(warnings.filters),
    }


@law(*_KINDS, cases=("no_grad", "inference_mode"))
def without_gradient(subject: Subject, case: str) -> None:
    """Without gradients the result is the same, and the part can be trained afterwards."""
    part, scene = subject.make(), usual(subject)
    expected = results(subject, subject.make(), scene)
    with torch.no_grad() if case == "no_grad" else torch.inference_mode():
        found = results(subject, part, Scene(copy.deepcopy(dict(scene.inputs))))
    if not same([tensor.clone() for tensor in found], expected, relative=1e-12):
        raise LawBroken(f"under torch.{case}() the result is {_said(found)}, otherwise {_said(expected)}", scene)
    try:
        if subject.kind == "loss":
            subject.gradients(scene, part)
        exercise(subject, part, [1])
    except RuntimeError as error:
        raise LawBroken(f"after a call under torch.{case}() the part cannot be trained: {error}", scene) from error


@law(*_KINDS)
def evaluation(subject: Subject) -> None:
    """In eval mode a call changes nothing that the part keeps: the same inputs give the same again, whatever came
    between. And it is what they give in training, unless random numbers are drawn or something is kept of batches."""
    part = subject.make()
    exercise(subject, part, [0])
    part.eval()
    saved = copy.deepcopy(part.state_dict())
    first = results(subject, part, usual(subject, 1))
    results(subject, part, usual(subject, 2))
    again = results(subject, part, usual(subject, 1))
    if not same(first, again, relative=1e-12):
        raise LawBroken(
            f"in eval mode a batch gives {_said(first)}, and {_said(again)} after another one", usual(subject, 1)
        )
    for name, value in part.state_dict().items():
        if not same(tensors_in(saved[name]), tensors_in(value)):
            raise LawBroken(f"a call in eval mode changes {name} of the state_dict", usual(subject, 1))
    if not subject.spec.random:
        _compare_modes(subject)


def _compare_modes(subject: Subject) -> None:
    """Whether training and evaluation give the same, unless a call in training leaves something behind."""
    for arguments in variants(subject).values():
        part, scene = subject.make(**arguments), usual(subject, 1)
        before = copy.deepcopy(part.state_dict())
        trained = results(subject, part, scene)
        is_moved = any(not same(tensors_in(before[n]), tensors_in(value)) for n, value in part.state_dict().items())
        if is_moved or not same(trained, results(subject, part, scene)):
            continue
        evaluated = results(subject, subject.make(**arguments).eval(), scene)
        if not same(trained, evaluated, relative=1e-12):
            raise LawBroken(
                f"in eval mode a batch gives {_said(evaluated)}, and {_said(trained)} in training", scene, **arguments
            )
