"""Schedules at work: numbers of parts that move with the steps."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nearfar.nn.steps import Stepping

__all__ = ["Curve", "Scheduled", "Schedules", "attach", "mark", "unmovable", "with_copies"]

#: The attribute by which a copy of a part is known.
_MARK = "_scheduled_as"


class Curve(Protocol):
    """A number as a function of the step, such as :class:`nearfar.schedule.Schedule`."""

    def at(self, step: int) -> float:
        """The number after so many steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Scheduled:
    """A number that moves.

    Attributes
    ----------
    owner
        The part that reads it at each call, or a mapping that does.
    name
        Its attribute, or key.
    curve
        What it is.
    """

    owner: nn.Module | MutableMapping[str, Any]
    name: str
    curve: Curve

    def set(self, step: int) -> None:
        """Give it the value it has after so many steps."""
        if isinstance(self.owner, nn.Module):
            setattr(self.owner, self.name, self.curve.at(step))
        else:
            self.owner[self.name] = self.curve.at(step)


class Schedules(Stepping):
    """Moves numbers with the steps, of which the count is a buffer: ``steps``, a 0-d int64.

    Parameters
    ----------
    scheduled
        What it moves; at once to where it begins.
    """

    steps: Tensor

    def __init__(self, scheduled: Iterable[Scheduled]) -> None:
        super().__init__()
        # In a tuple, so that the parts do not become parts of this one.
        self.scheduled = tuple(scheduled)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # The same count where it can be read without waiting for a GPU.
        self._count = 0
        self._set()

    def step(self) -> None:
        self._count += 1
        self.steps += 1
        self._set()

    def _set(self) -> None:
        for each in self.scheduled:
            each.set(self._count)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.steps.is_meta:
            self._count = int(self.steps)
            self._set()

    @property
    def values(self) -> dict[str, float]:
        """What each number is now, by its name; of two of one name, the later."""
        return {each.name: each.curve.at(self._count) for each in self.scheduled}

    def extra_repr(self) -> str:
        return ", ".join(f"{each.name}={each.curve}" for each in self.scheduled)


def with_copies(scheduled: Sequence[Scheduled], roots: Iterable[nn.Module]) -> list[Scheduled]:
    """What moves, in the copies of its owners that parts around them have made, too.

    Parameters
    ----------
    scheduled
        What moves, of owners that :func:`mark` was called with.
    roots
        The modules that have the copies among their parts.
    """
    copies: dict[int, list[nn.Module]] = {}
    for part in dict.fromkeys(part for root in roots for part in root.modules()):
        if (mark := vars(part).pop(_MARK, None)) is not None:
            copies.setdefault(mark, []).append(part)
    found = []
    for each in scheduled:
        owners: Sequence[nn.Module | MutableMapping[str, Any]] = copies.get(id(each.owner)) or [each.owner]
        found += [Scheduled(owner, each.name, each.curve) for owner in owners]
    return found


def mark(part: nn.Module) -> None:
    """Have copies of a part be known as such."""
    setattr(part, _MARK, id(part))


def attach(loss: nn.Module, scheduled: Iterable[Scheduled]) -> None:
    """Have the calls of a loss, or the steps of the optimiser it follows, move numbers of it or of its parts."""
    loss.schedules = Schedules(scheduled)
    loss.register_forward_hook(_called)


def _called(loss: nn.Module, *_: Any) -> None:
    assert isinstance(loss.schedules, Schedules)
    loss.schedules.called()


def unmovable(one: nn.Module, other: nn.Module, names: Iterable[str]) -> str:
    """Why numbers of a part cannot move between two values it was made with; empty where they can.

    Parameters
    ----------
    one, other
        The part, made with either.
    names
        The attributes that are to move.
    """
    names = list(names)
    if kept := [name for name in names if not isinstance(getattr(one, name, None), int | float)]:
        return f"{kept[0]} is not kept as a number that could move, when it is made so"
    derived = {
        name
        for first, second in zip(one.modules(), other.modules(), strict=False)
        for name, value in vars(first).items()
        if isinstance(value, bool | int | float | str) and vars(second).get(name) != value
    }
    if derived := derived - set(names):
        what = " and ".join(sorted(derived))
        return f"{what} is computed from {' and '.join(names)} when it is made, and would not move along"
    return ""
