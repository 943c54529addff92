"""What a part does besides what it does by default: its presets, its switches, its choices."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from nearfar.testing.subject import Subject

__all__ = ["variants"]


@functools.lru_cache(maxsize=32)
def variants(subject: Subject) -> dict[str, dict[str, Any]]:
    """The ways of making a part that differ in kind rather than in number.

    Parameters
    ----------
    subject
        The part.

    Returns
    -------
    dict
        Case → arguments for :meth:`Subject.make`: ``""`` for the defaults, ``preset`` by its bare name,
        ``swap=True`` for a boolean the other way round, ``form='log'`` for another value of a ``Literal``. Only
        those that can be made, a switch may need more than itself, and of a loss those that are one number.
    """
    found: dict[str, dict[str, Any]] = {}
    for case, arguments in _all(subject):
        try:
            part = subject.make(**arguments)
        except (Exception, SystemExit):
            continue
        if not (arguments and _is_unreduced(subject, part)):
            found[case] = arguments
    return found


def _is_unreduced(subject: Subject, part: nn.Module) -> bool:
    """Whether a loss made so is not one number: a switch that stands for a reducer, which no law is about."""
    if subject.kind != "loss" or subject.trouble:
        return False
    try:
        value = subject.call(part, subject.scene())
    except Exception:  # which laws are there to find
        return False
    return isinstance(value, Tensor) and value.numel() > 1


def _all(subject: Subject) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", {}
    presets = subject.spec.presets
    for name in presets:
        yield name, {"preset": name}
    for parameter in subject.signature.parameters:
        name, value = parameter.name, subject.example.get(parameter.name, parameter.default)
        others = (not value,) if isinstance(value, bool) else parameter.choices
        for other in others:
            if other != value and not any(dict(p.arguments) == {name: other} for p in presets.values()):
                yield f"{name}={other!r}", {name: other}
