"""What arguments are said to do is what they do."""

from __future__ import annotations

import inspect
import itertools
import math
import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from nearfar.build import make_part
from nearfar.errors import ArgumentError, NearfarError
from nearfar.grammar import SLOTS, Live, Part
from nearfar.signature import Parameter
from nearfar.testing.exercise import usual
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.observe import shows
from nearfar.testing.sorts import every_sort
from nearfar.testing.subject import Subject, seeded, target_of
from nearfar.testing.values import beyond, current, ends, others
from nearfar.testing.variants import variants

_ALL = ("loss", "miner", "reducer", "distance")

# ---- what a name stands for


@law(*_ALL, cases=lambda subject: subject.spec.presets)
def presets(subject: Subject, case: str) -> None:
    """Every preset gives arguments, says where they come from, can be made and runs."""
    preset = subject.spec.presets[case]
    if not preset.arguments:
        raise LawBroken(f"the preset {case!r} gives no argument")
    if not preset.source:
        raise LawBroken(f"the preset {case!r} does not say where its arguments come from")
    try:
        subject.call(subject.make(preset=case), usual(subject))
    except NearfarError as error:
        raise LawBroken(f"the preset {case!r} does not run: {error}", preset=case) from error


@law(*_ALL, cases=lambda subject: subject.spec.needs)
def needs(subject: Subject, case: str) -> None:
    """What a part needs of its context is a parameter of it, is missed by name when it is left out, and matters."""
    if case not in subject.signature:
        raise LawBroken(f"it needs {case}, and its constructor has no such parameter")
    given = {n: v for n, v in subject.part().named.items() if n != case}
    try:
        with seeded(subject.seed):
            make_part(Part(subject.entry.full_name, (), given), subject.kind, subject.registry, {})
    except ArgumentError as error:
        if case not in str(error):
            raise LawBroken(f"left out, {case} is missed in words that do not name it: {error}") from error
    else:
        raise LawBroken(f"it needs {case}, and can be made without it")
    value = subject.part().named[case]
    if not isinstance(value, int):
        raise NotApplicable(f"no other {case} is known")
    more: dict[str, Any] = {case: value + 1}
    if _shapes(subject.make()) != _shapes(subject.make(**more)):
        return
    scenes = [usual(subject)]
    if subject.is_on_embeddings:  # a label that only the greater of two numbers of classes allows
        scenes.append(scenes[0].replace(labels=scenes[0]["labels"].clamp_min(1) + value - 1))
    # A scene that one of the two refuses tells them apart as well.
    if all(shows(subject, scene, {}, more) is False for scene in scenes):
        raise LawBroken(f"{case} = {value} and {case} = {value + 1} make the same part", scenes[0])


def _shapes(part: nn.Module) -> dict[str, Any]:
    return {name: getattr(value, "shape", None) for name, value in part.state_dict().items()}


# ---- what an argument does


def _own(subject: Subject) -> list[Parameter]:
    """The parameters that the part's own constructor names, without the parts it composes with and its context's."""
    try:
        named = inspect.signature(target_of(subject)).parameters
    except (Exception, SystemExit):  # what is wrong with the target is said elsewhere
        return []
    left_out = {*SLOTS, *subject.spec.needs}
    return [p for p in subject.signature.parameters if p.name in named and not p.variadic and p.name not in left_out]


#: How many times one part is compared with another before an argument is said not to matter.
_TRIES = 150


@law(*_ALL, cases=lambda subject: [p.name for p in _own(subject)])
def arguments_matter(subject: Subject, case: str) -> None:
    """Every argument, changed within its range, changes the value, the gradient, the selection or the state
    somewhere."""
    values = [value for value in others(subject, subject.signature[case]) if _can_be_made(subject, {case: value})]
    if not values:
        raise NotApplicable(f"no other value of {case} is known that it takes")
    bases = _bases(subject, case)
    scenes = list(every_sort(subject))
    unknown = [p.name for p in _own(subject) if p.name != case and not others(subject, p)]
    tries = itertools.product(range(len(bases)), range(len(scenes)), range(len(values)))
    compared = False
    # The plain, the first and the near by before all the rest: most arguments show at once.
    for base, scene, other in sorted(tries, key=sum)[: _TRIES // 5 if unknown else _TRIES]:
        shown = shows(subject, scenes[scene], bases[base], bases[base] | {case: values[other]})
        if shown:
            return
        compared |= shown is not None
    if not compared:
        raise NotApplicable(f"no other value of {case} is known that it takes")
    if unknown:
        raise NotApplicable(f"it may matter beside another {' or '.join(unknown)}, of which no other value is known")
    tried = ", ".join(f"{value:.4g}" if isinstance(value, float) else repr(value) for value in values)
    raise LawBroken(
        f"{case} = {tried} give what {case} = {current(subject, case)!r} gives, on inputs of every sort; where that "
        f'is meant, the spec says why: expected_failures={{"arguments_matter[{case}]": "…"}}',
        scenes[0],
        **{case: values[0]},
    )


def _bases(subject: Subject, name: str) -> list[dict[str, Any]]:
    """What else to change when one argument may matter only beside another."""
    plain, *switched = (arguments for arguments in variants(subject).values() if name not in arguments)
    found = [plain]
    for parameter in _own(subject):
        if parameter.name != name and not isinstance(current(subject, parameter.name), bool):
            values = others(subject, parameter)
            values = values[:1] + values[-1:] if len(values) > 1 else values
            found += [{parameter.name: v} for v in values if _can_be_made(subject, {parameter.name: v})]
    return found + switched


def _can_be_made(subject: Subject, arguments: dict[str, Any]) -> bool:
    try:
        subject.make(**arguments)
    except (Exception, SystemExit):
        return False
    return True


def _ranged(subject: Subject) -> Iterable[str]:
    """The parameters whose range has an end."""
    return [
        p.name
        for p in subject.signature.parameters
        if any(end is not None and math.isfinite(end) for end in (p.low, p.high))
    ]


@law(*_ALL, cases=_ranged)
def arguments_refused(subject: Subject, case: str) -> None:
    """A value beyond the range that the docstring gives is refused by name when the part is made; one at an end of it
    is not, unless for what another argument is."""
    parameter = subject.signature[case]
    for value in beyond(parameter):
        said = _refusal(subject, case, value)
        if said is None:
            raise LawBroken(f"{case} = {value!r} is taken, beyond {parameter.range}")
        if case not in said:
            raise LawBroken(f"{case} = {value!r} is beyond {parameter.range}, and refused without its name: {said}")
    for value in ends(parameter):
        said = _refusal(subject, case, value)
        rest = {p.name for p in subject.signature.parameters} - {case}
        if said is not None and not any(re.search(rf"\b{name}\b", said) for name in rest):
            raise LawBroken(f"{case} = {value!r} is in {parameter.range}, and refused: {said}")


def _refusal(subject: Subject, name: str, value: Any) -> str | None:
    """What the constructor says against a value; None where it takes it. Composition, which reads the range itself,
    is left out."""
    given: dict[str, Any] = {name: Live(value)}
    try:
        subject.make(**given)
    except ArgumentError as error:
        cause = error.__cause__
        if cause is None or isinstance(cause, ValueError):
            return str(cause or error)
        raise LawBroken(
            f"{name} = {value!r} raises {type(cause).__name__}: {cause}; an error by name is due"
        ) from error
    return None
