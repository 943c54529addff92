"""Numbers that move with the steps of training: a margin that comes in slowly, a scale that grows.

In a recipe a schedule stands where the number would: ``arcface(margin=linear(0, 0.5, steps=10000))``. It is read,
checked and written without torch; :mod:`nearfar.nn.schedules` moves the numbers.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nearfar.errors import ArgumentError

__all__ = ["SHAPES", "Schedule", "read_schedule"]

#: Name → how much of the way is done after a share of the steps, both in 0..1.
SHAPES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "linear": lambda share: share,
        "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
        "step": lambda share: float(share >= 1),
    }
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A number as a function of the step, from ``start`` to ``end``.

    Parameters
    ----------
    shape : {"linear", "cosine", "step"}
        How it gets there: ``linear``, by equal amounts; ``cosine``, slowly at both ends; ``step``, all at once after
        the last of the steps.
    start, end : float
        Where it begins, and where it stays.
    steps : int
        [1..inf] How many steps it takes.
    after : int
        [0..inf] How many steps it stays at ``start`` before that; 0 unless given.

    Raises
    ------
    ArgumentError
        The shape is none of these, an end is no finite number, or a number of steps is no whole number in its range.
    """

    shape: str
    start: float
    end: float
    steps: int
    after: int = 0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ArgumentError(f"no schedule is called {self.shape!r}{_hint(self.shape)}")
        for name, value in (("start", self.start), ("end", self.end)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ArgumentError(f"{self.shape}: {name} must be a finite number; got {value!r}")
        for name, count, least in (("steps", self.steps, 1), ("after", self.after, 0)):
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise ArgumentError(f"{self.shape}: {name} must be a whole number of at least {least}; got {count!r}")

    def at(self, step: int) -> float:
        """The number after so many steps."""
        share = min(max(step - self.after, 0) / self.steps, 1.0)
        # Both ends to the bit, so that a schedule that is through is the number itself.
        if share in (0.0, 1.0):
            return float(self.end if share else self.start)
        return self.start + (self.end - self.start) * SHAPES[self.shape](share)

    def __str__(self) -> str:
        after = f", after={self.after}" if self.after else ""
        return f"{self.shape}({self.start!r}, {self.end!r}, steps={self.steps}{after})"


_SIGNATURE = inspect.signature(lambda start, end, *, steps, after=0: None)
_FORM = "(start, end, steps=…)"


def read_schedule(name: str, positional: tuple[Any, ...], named: Mapping[str, Any]) -> Schedule:
    """Make a schedule of how it is written: ``linear(0, 0.5, steps=10000)``.

    Raises
    ------
    ArgumentError
        There is none of the name, or its arguments do not fit.
    """
    if name not in SHAPES:
        raise ArgumentError(f"no schedule is called {name!r}{_hint(name)}")
    try:
        bound = _SIGNATURE.bind(*positional, **named).arguments
    except TypeError as error:
        raise ArgumentError(f"{name} is written {name}{_FORM}, with after=… where it begins later: {error}") from None
    return Schedule(name, **bound)


def _hint(name: str) -> str:
    close = difflib.get_close_matches(str(name), SHAPES, n=1)
    known = ", ".join(f"{shape}{_FORM}" for shape in SHAPES)
    return f"; did you mean {close[0]!r}? There are {known}" if close else f"; there are {known}"
