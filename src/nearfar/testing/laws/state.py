"""What a part keeps, and what becomes of it when it is copied, saved and moved."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.testing.exercise import exercise, results, same, usual
from nearfar.testing.kept import Reads, kept, registered
from nearfar.testing.law import LawBroken, law
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
    """Two parts share nothing: training the one changes neither the other nor their class."""
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
    ``state_dict`` know of; on a GPU, where there is one, it gives the same."""
    target = torch.device("cuda" if torch.cuda.is_available() else "meta")
    for arguments in variants(subject).values():
        if hidden := _hidden(subject, subject.make(**arguments)):
            raise LawBroken(
                f"{', '.join(hidden)}: neither parameter nor buffer, so it stays behind when the part is moved, and is "
                "not saved with it; register_buffer makes it one",
                **arguments,
            )
        moved = subject.make(**arguments).to(target)
        for name, tensor in (*moved.named_parameters(), *moved.named_buffers()):
            if tensor.device.type != target.type:
                message = f"{name} stays on the {tensor.device.type} when the part is moved to {target.type}"
                raise LawBroken(message, **arguments)
        if target.type == "cuda":
            _compare_on(subject, moved, target, **arguments)


def _hidden(subject: Subject, part: nn.Module) -> list[str]:
    """The paths of the tensors that a part keeps from one call and reads in the next, unknown to ``to``."""
    exercise(subject, part, [0])
    known = registered(part)
    reads = Reads({name: tensor for name, tensor in kept(part).items() if id(tensor) not in known})
    with reads:
        results(subject, part, usual(subject, 1))
    return sorted(reads.names)


def _compare_on(subject: Subject, moved: nn.Module, target: torch.device, **arguments: Any) -> None:
    """Whether a part that was moved gives on its device what it gives on the CPU."""
    scene = usual(subject)
    there = dataclasses.replace(scene, inputs=_to(dict(scene.inputs), target))
    found = results(subject, moved, there)
    if any(tensor.device.type != target.type for tensor in found if tensor.ndim or subject.kind == "loss"):
        raise LawBroken(f"of inputs on the {target.type} it returns a tensor on another device", scene, **arguments)
    # A draw from a GPU's generator is another draw.
    if not subject.spec.random:
        expected = results(subject, subject.make(**arguments), scene)
        if not same([tensor.cpu() for tensor in found], expected, relative=1e-6):
            raise LawBroken(f"on the {target.type} it gives something else than on the CPU", scene, **arguments)


def _to(value: Any, target: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(target)
    if isinstance(value, dict):
        return {name: _to(item, target) for name, item in value.items()}
    return tuple(_to(item, target) for item in value) if isinstance(value, tuple) else value
