"""A plan: what a recipe is to be built of, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nearfar.errors import NearfarError, RecipeError
from nearfar.grammar import Live
from nearfar.registry import Entry
from nearfar.schedule import Schedule

__all__ = ["Plan", "PlannedPart", "PlannedTerm", "Problem", "refusal"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a recipe: an error stops composition, a warning is told and goes on.

    Attributes
    ----------
    severity, message
        Of which sort it is, and what is wrong.
    cause
        The error it was found by, where there was one.
    lacks
        What the context would have to supply, where that is all that is wrong: ``num_classes`` …
    """

    severity: Literal["error", "warning"]
    message: str
    cause: NearfarError | None = field(default=None, compare=False)
    lacks: str = ""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A part to be built.

    Attributes
    ----------
    entry
        What it is.
    arguments
        For the constructor, by name: literals, schedules of numbers, further planned parts, lists and dictionaries of
        such, live objects.
    variadic
        For its ``*args``.
    attributes
        A loss's reducer and distance where its constructor takes none: they are set on the object.
    miner
        A loss's miner where its constructor takes none: it selects before each call.
    """

    entry: Entry
    arguments: Mapping[str, Any] = field(default_factory=dict)
    variadic: tuple[Any, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    miner: Any = None


@dataclass(frozen=True, slots=True)
class PlannedTerm:
    """A term to be built; ``loss`` is a planned part or a live object."""

    loss: PlannedPart | Live
    weight: float | Schedule


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built, and what is wrong with it. With errors among the problems it cannot be built."""

    terms: tuple[PlannedTerm, ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")


def refusal(errors: Sequence[Problem], recipe: object) -> RecipeError:
    """The exception that says all that is wrong with a recipe."""
    messages = [problem.message for problem in errors]
    listed = "".join(f"\n  - {message}" for message in messages)
    text = f"{len(messages)} things are wrong with {recipe}:{listed}" if len(messages) > 1 else messages[0]
    return RecipeError(text, problems=messages)
