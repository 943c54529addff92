"""What a constructor's source and docstring say of its parameters is so."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from nearfar.errors import ArgumentError
from nearfar.grammar import Part
from nearfar.signature import Parameter, Source, read_class, read_target
from nearfar.testing.exercise import results, same, usual
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.subject import Subject, seeded, target_of
from nearfar.testing.values import is_number
from nearfar.told import told

_ALL = ("loss", "miner", "reducer", "distance")

_ABBREVIATED = {"rad": "radians", "radian": "radians", "deg": "degrees", "degree": "degrees"}


@law(*_ALL, standalone=True)
def documented(subject: Subject) -> None:
    """The numpy docstring describes every parameter of the constructor and nothing else; a bracket that opens a
    description holds a unit, a range or both, and the default lies in the range; a loss, or its base, has a formula."""
    _refuse_swallowed(subject)
    parameters = subject.signature.parameters
    if parameters and not any(p.description for p in parameters):
        raise NotApplicable("its docstring has no numpy section on parameters")
    # *args hands on what is described under its own names.
    wrong = [f"{p.name} is not described" for p in parameters if not p.description and not _hands_on(p)]
    wrong += [f"{name} is described, and is no parameter" for name in subject.signature.strangers]
    wrong += [f"{p.name}: {said}" for p in parameters for said in _misdescribed(p)]
    if subject.kind == "loss" and not any(".. math::" in text for text in _docstrings(subject)):
        wrong.append("it has no formula: a paragraph '.. math::' in the docstring of its class")
    if wrong:
        raise LawBroken("; ".join(wrong))


#: What Python makes of \alpha, \beta, \varphi, \frac, \rho, \theta, \tau and \text where the string is not raw.
_SWALLOWED = re.compile(r"[\x07\x08\x0b\x0c\r]|\t(?=heta|au\b|ext|imes|ilde|op\b|riangle)")


def _refuse_swallowed(subject: Subject) -> None:
    """Raise where a backslash of a formula became part of a control character."""
    written = ""
    with contextlib.suppress(Exception):  # what is wrong with the target is said elsewhere
        written = target_of(subject).__doc__ or ""
    if found := _SWALLOWED.search(written):
        raise LawBroken(
            f"its docstring has the control character {found[0]!r}, which Python makes of a backslash and a letter; "
            'begin it with r""" rather than """'
        )


def _docstrings(subject: Subject) -> Iterator[str]:
    """That of the part's class and those of its bases."""
    yield subject.signature.docstring
    with contextlib.suppress(Exception):  # what is wrong with the target is said elsewhere
        for base in target_of(subject).__mro__:
            yield base.__doc__ or ""


def _misdescribed(parameter: Parameter) -> Iterator[str]:
    text, default = parameter.description, parameter.default
    if text.startswith("[") or re.match(r"\([^)\]]*\.\.", text):
        opening = re.split(r"(?<=[\])])", text, maxsplit=1)[0]
        yield f"the bracket {opening!r} is none of [unit], [low..high] and [unit, low..high]"
    if parameter.unit in _ABBREVIATED:
        yield f"the unit is written {_ABBREVIATED[parameter.unit]!r}, not {parameter.unit!r}"
    if parameter.low is not None and parameter.high is not None and parameter.low >= parameter.high:
        yield f"the range {parameter.range} is empty"
    if is_number(default) and not parameter.holds(default):
        yield f"the default {default!r} is not in its range {parameter.range}"


@law(*_ALL)
def signature(subject: Subject) -> None:
    """The constructor takes the parameters that are read from its source, with the same defaults, by place where they
    have one, and makes of its defaults what it makes without them."""
    target = target_of(subject)
    _compare_signatures(subject, target)
    _give_defaults(subject)
    _give_by_place(subject, target)


def _compare_signatures(subject: Subject, target: Any) -> None:
    """Whether what the source says is what there is once it is imported."""
    where = subject.spec.target
    if subject.entry.target is not None:
        where = f"{target.__module__}:{target.__qualname__}"
    try:
        read = read_target(where).parameters
    except ArgumentError:  # it is no class of a module, so there is nothing else to be read
        return
    found = read_class(target).parameters
    # A default that is an expression stands for whatever it comes to.
    expressions = {p.name for p in read if isinstance(p.default, Source)}
    first, second = (_written(each, expressions) for each in (read, found))
    if first != second:
        raise LawBroken(f"its source says ({', '.join(first)}), and once imported it takes ({', '.join(second)})")


def _written(parameters: Iterable[Parameter], expressions: Collection[str]) -> list[str]:
    """Parameters as a signature has them; those that go by name, whose order says nothing, by name."""
    placed: list[str] = []
    named: list[str] = []
    for p in parameters:
        default = "" if p.required or p.variadic else f" = {'…' if p.name in expressions else repr(p.default)}"
        (named if p.keyword_only else placed).append(f"{'*' if p.variadic else ''}{p.name}{default}")
    return [*placed, "by name:", *sorted(named)] if named else placed


def _give_defaults(subject: Subject) -> None:
    """Whether every parameter can be given its default, and it changes nothing."""
    defaults = {
        p.name: p.default
        for p in subject.signature.parameters
        if not p.required and not p.variadic and not isinstance(p.default, Source) and p.name not in subject.example
    }
    scene = usual(subject)
    expected = results(subject, subject.make(), scene)
    with contextlib.suppress(Exception):
        if same(results(subject, subject.make(**defaults), scene), expected):
            return
    for name, value in defaults.items():
        try:
            found = results(subject, subject.make(**{name: value}), scene)
        except Exception as error:
            said = next(iter(str(error).splitlines()), "")
            raise LawBroken(f"{name} = {value!r} is its default and cannot be given: {said}") from error
        if not same(found, expected):
            raise LawBroken(f"given its default, {name} = {value!r}, the part does not do what it does without", scene)


def _give_by_place(subject: Subject, target: Any) -> None:
    """Whether what the constructor takes without a name may be given without one."""
    named = subject.part().named
    parameters = subject.signature.parameters
    # A constructor that hands *args on takes by place what the one above does.
    by_name_too = any(map(_hands_on, parameters))
    wanted = [p for p in parameters if p.required and p.name in named and (by_name_too or not p.keyword_only)]
    values = [named[p.name] for p in wanted]
    if not wanted or any(isinstance(value, Part | list | dict) for value in values):
        return
    rest = {n: v for n, v in named.items() if n not in {p.name for p in wanted}}
    try:
        with seeded(subject.seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            part = target(*values, **rest)
    except Exception as error:
        given = ", ".join(map(repr, values))
        names = ", ".join(p.name for p in wanted)
        raise LawBroken(f"{names} are taken by place, and {target.__name__}({given}) raises {told(error)}") from error
    scene = usual(subject)
    if not same(results(subject, part.double(), scene), results(subject, subject.make(), scene)):
        raise LawBroken("given by place, its arguments do not do what they do by name", scene)


def _hands_on(parameter: Parameter) -> bool:
    return parameter.variadic and parameter.name == "args"
