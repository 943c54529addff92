"""The slow and plain function that a spec names, and the arguments that a part has."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nearfar.testing.law import LawBroken, NotApplicable
from nearfar.testing.subject import Subject
from nearfar.told import told

__all__ = ["arguments_of", "definition_of"]


def definition_of(subject: Subject, arguments: Mapping[str, Any], **context: Any) -> partial[Any]:
    """The definition of a part, given the arguments that the part has.

    Parameters
    ----------
    subject
        The part.
    arguments
        What it is made with, as for :meth:`Subject.make`.
    **context
        What a definition may ask for besides.

    Returns
    -------
    partial
        Takes the inputs alone; its ``keywords`` are what else the function names.

    Raises
    ------
    NotApplicable
        The spec names no definition.
    LawBroken
        It names one that is not there.
    """
    named = subject.spec.definition
    if not named:
        raise NotApplicable("its spec names no definition")
    module, _, name = named.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise LawBroken(f"the spec's definition {named} cannot be imported: {told(error)}") from error
    known = arguments_of(subject, arguments) | context
    asked = {n: known[n] for n in inspect.signature(function).parameters if n in known}
    return partial(_guarded(function, named), **asked)


def _guarded(function: Callable[..., Any], named: str) -> Callable[..., Any]:
    """The definition; what it raises is said of it, not of the part."""

    @functools.wraps(function)
    def define(*inputs: Any, **context: Any) -> Any:
        try:
            return function(*inputs, **context)
        except Exception as error:
            raise LawBroken(f"its definition {named} raises {told(error)}") from error

    return define


def arguments_of(subject: Subject, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every parameter: the default, or what the preset, the example or ``arguments`` have instead."""
    given = dict(arguments)
    preset = given.pop("preset", None)
    defaults = {p.name: p.default for p in subject.signature.parameters if not p.required and not p.variadic}
    chosen = subject.spec.presets[preset].arguments if preset is not None else {}
    return {**defaults, **chosen, **subject.part().named, **given}
