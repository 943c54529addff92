"""What a part keeps, and what becomes of it when it is copied, saved and moved."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.testing.elsewhere import ELSEWHERE, elsewhere, here, is_beyond
from nearfar.testing.exercise import exercise, results, same, usual
from nearfar.testing.kept import Reads, kept, registered
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.scene import Scene
from nearfar.testing.sorts import pairs, triplets
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants
from nearfar.told import told

_KINDS = ("loss", "miner", "reducer", "distance")
_BEFORE, _AFTER = range(3), range(3, 6)


@law(*_KINDS)
def resumed(subject: Subject) -> None:
    """Training goes on from a saved state_dict, in a part made anew, as if it had never stopped: equal to the bit."""
    for arguments in variants(subject).values():
        part = subject.make(**arguments)
        exercise(subject, part, _BEFORE)
        saved = copy.deepcopy(part.state_dict())
        # Begun from another seed, so that what is not loaded is not equal by luck.
        fresh = dataclasses.replace(subject, seed=subject.seed + 1).make(**arguments)
        try:
            fresh.load_state_dict(saved)
        except RuntimeError as error:
            message = f"a part made anew does not take the state_dict of a trained one: {error}"
            raise LawBroken(message, **arguments) from error
        _continue(subject, part, fresh, "a part loaded from the state_dict", **arguments)


def _continue(subject: Subject, part: nn.Module, other: nn.Module, what: str, **arguments: Any) -> None:
    """Whether another part goes on as the first does; the other first, so that what they share shows."""
    found, expected = exercise(subject, other, _AFTER), exercise(subject, part, _AFTER)
    for number, (one, two) in enumerate(zip(found, expected, strict=False)):
        if not same([one], [two]):
            said = f"result {number + 1} is {_said(one)} instead of {_said(two)}"
            raise LawBroken(f"{what} goes on differently: {said}", **arguments)
    if len(found) != len(expected):
        raise LawBroken(f"{what} returns something else", **arguments)


def _said(tensor: Tensor) -> str:
    return f"{float(tensor):.17g}" if tensor.numel() == 1 else f"a different tensor {tuple(tensor.shape)}"


@law(*_KINDS, cases=("deepcopy", "pickle"))
def copies(subject: Subject, case: str) -> None:
    """A copy made during training goes on as the original does, and shares nothing with it."""
    part = subject.make()
    exercise(subject, part, _BEFORE)
    try:
        other = copy.deepcopy(part) if case == "deepcopy" else pickle.loads(pickle.dumps(part))
    except Exception as error:
        raise LawBroken(f"no copy can be made by {case}: {told(error)}") from error
    _continue(subject, part, other, f"a copy made by {case}")


@law(*_KINDS)
def instances(subject: Subject) -> None:
    """Two parts share nothing: they have no memory in common, and training the one changes neither the other nor their
    class."""
    _refuse_shared_memory(subject)
    expected = exercise(subject, subject.make(), _AFTER)
    idle, busy = subject.make(), subject.make()
    before, attributes = copy.deepcopy(idle.state_dict()), _class_attributes(idle)
    exercise(subject, busy, _BEFORE)
    for name, value in idle.state_dict().items():
        if isinstance(value, Tensor) and not torch.equal(value, before[name]):
            raise LawBroken(f"training one part changes {name} of another")
    for name, value in _class_attributes(idle).items():
        if attributes.get(name) != value:
            raise LawBroken(f"training a part changes {name}, which all parts of its class share")
    if not same(exercise(subject, idle, _AFTER), expected):
        raise LawBroken("after one part was trained, another that was not gives other results")


def _refuse_shared_memory(subject: Subject) -> None:
    """Whether a parameter or a buffer of one part lies in the memory of another.

    In float32, as they are made: a part that is cast to another dtype gets memory of its own.
    """
    one, other = subject.make(torch.float32), subject.make(torch.float32)
    taken = {_memory(tensor): name for name, tensor in _tensors(one) if tensor.numel()}
    for name, tensor in _tensors(other):
        if tensor.numel() and _memory(tensor) in taken:
            raise LawBroken(
                f"{name} of a part lies where {taken[_memory(tensor)]} of another does, so what loads or trains the "
                "one changes the other; give each its own, by clone()"
            )


def _tensors(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from part.named_parameters()
    yield from part.named_buffers()


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _class_attributes(part: nn.Module) -> dict[str, str]:
    """The data that the classes of a part and of its modules hold, as text."""
    found = {}
    for cls in dict.fromkeys(base for module in part.modules() for base in type(module).__mro__):
        if not cls.__module__.startswith(("torch.", "builtins", "abc", "typing")):
            for name, value in vars(cls).items():
                if not name.startswith(("__", "_abc_")) and not callable(value) and not hasattr(value, "__get__"):
                    found[f"{cls.__name__}.{name}"] = repr(value)
    return found


@law(*_KINDS)
def device(subject: Subject) -> None:
    """The part moves as a whole: whatever tensor it keeps and reads again is a parameter or a buffer, which ``to`` and
    ``state_dict`` know of. On a GPU it gives the same; where there is none, on a device that is made up, whose tensors
    are computed on the CPU and not mixed with its own."""
    for arguments in variants(subject).values():
        if hidden := _hidden(subject, subject.make(**arguments)):
            raise LawBroken(
                f"{', '.join(hidden)}: neither parameter nor buffer, so it stays behind when the part is moved, and is "
                "not saved with it; register_buffer makes it one",
                **arguments,
            )
        if torch.cuda.is_available():
            _compare_on(subject, torch.device("cuda"), **arguments)
            continue
        with elsewhere():
            _compare_on(subject, ELSEWHERE, **arguments)


def _hidden(subject: Subject, part: nn.Module) -> list[str]:
    """The paths of the tensors that a part keeps from one call and reads in the next, unknown to ``to``."""
    exercise(subject, part, [0])
    known = registered(part)
    reads = Reads({name: tensor for name, tensor in kept(part).items() if id(tensor) not in known})
    with reads:
        results(subject, part, usual(subject, 1))
    return sorted(reads.names)


def _compare_on(subject: Subject, target: torch.device, **arguments: Any) -> None:
    """Whether a part moves, and then gives on its device what it gives on the CPU, gradients too."""
    moved = subject.make(**arguments).to(target)
    for name, tensor in (*moved.named_parameters(), *moved.named_buffers()):
        if tensor.device.type != target.type:
            message = f"{name} stays on the {tensor.device.type} when the part is moved to another device"
            raise LawBroken(message, **arguments)
    for scene in _calls(subject) if not arguments else (usual(subject),):
        _compare_call(subject, scene, target, **arguments)


def _calls(subject: Subject) -> Iterator[Scene]:
    """A plain call, one with whatever else the spec says that the part takes, and one of nothing."""
    scene = usual(subject)
    yield scene
    if subject.kind == "loss" and subject.is_on_embeddings:
        if subject.loss.reference:
            yield subject.with_reference(scene)
        if {"pairs", "triplets"} & {*subject.loss.accepts}:
            yield scene.replace(indices_tuple=(pairs if "pairs" in subject.loss.accepts else triplets)(scene))
    if subject.kind == "loss":
        yield Scene({name: value[:0] for name, value in scene.inputs.items()}, f"tuple(x[:0] for x in {scene.origin})")


def _compare_call(subject: Subject, scene: Scene, target: torch.device, **arguments: Any) -> None:
    try:
        expected = _on_a_call(subject, subject.make(**arguments), scene)
    except Exception:  # which other laws are about
        return
    away = dataclasses.replace(scene, inputs=_to(dict(scene.inputs), target))
    try:
        found = _on_a_call(subject, subject.make(**arguments).to(target), away)
    except Exception as error:
        if target == ELSEWHERE and is_beyond(error):
            raise NotApplicable(f"there is no GPU, and what stands for one stops: {told(error)}") from error
        raise LawBroken(f"on another device than the CPU it stops: {told(error)}", scene, **arguments) from error
    for name, tensor in found.items():
        if tensor.device.type != target.type and (tensor.ndim or subject.kind == "loss"):
            raise LawBroken(f"of inputs on another device it returns {name} on the CPU", scene, **arguments)
    # A draw from a GPU's generator is another draw.
    if subject.spec.random:
        return
    for name, tensor in expected.items():
        if name not in found or not same([here(found[name]).cpu()], [tensor], relative=1e-6):
            raise LawBroken(f"on another device {name} is something else than on the CPU", scene, **arguments)


def _on_a_call(subject: Subject, part: nn.Module, scene: Scene) -> dict[str, Tensor]:
    """What a part returns, and the gradients of a loss."""
    found = {f"result {number}": tensor for number, tensor in enumerate(results(subject, part, scene), 1)}
    if subject.kind == "loss":
        with contextlib.suppress(LawBroken):  # where there is none, which another law is about
            found |= {f"the gradient of {name}": each for name, each in subject.gradients(scene, part).items()}
    return found


def _to(value: Any, target: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(target)
    if isinstance(value, dict):
        return {name: _to(item, target) for name, item in value.items()}
    return tuple(_to(item, target) for item in value) if isinstance(value, tuple) else value
