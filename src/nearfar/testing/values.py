"""Values that a parameter may have instead of its own, and values that it may not have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from nearfar.signature import Parameter
from nearfar.testing.scene import CLASSES
from nearfar.testing.subject import Subject

__all__ = ["beyond", "current", "ends", "is_number", "others"]


def current(subject: Subject, name: str) -> Any:
    """The value a parameter has in the checks of a part, or its default."""
    return subject.part().named.get(name, subject.signature[name].default)


def others(subject: Subject, parameter: Parameter) -> list[Any]:
    """Values a parameter may have instead of the one it has, the likeliest to matter first."""
    own = current(subject, parameter.name)
    if isinstance(own, bool):
        return [not own]
    found = [preset.arguments.get(parameter.name, own) for preset in subject.spec.presets.values()]
    found += parameter.choices
    if own is None and parameter.name == "num_classes":
        found.append(CLASSES)
    if is_number(own) or (own is None and re.search(r"\b(float|int)\b|^$", parameter.annotation)):
        found += _numbers(parameter, own)
    different = [value for value in found if value != own]
    return list({repr(value): value for value in different}.values())[:6]


def _numbers(parameter: Parameter, own: Any) -> list[Any]:
    is_whole = _is_whole(parameter)
    near = [] if own is None else [2 * own, own / 2, own + 0.1, own - 0.1]
    middle = [] if parameter.low is None or parameter.high is None else [(parameter.low + parameter.high) / 2]
    listed = [*near, *middle, 0.5, 1, 2, 0.1, 3, 5, -1]
    if is_whole:
        near = [] if own is None else [own + 1, 2 * own, own // 2, own - 1]
        listed = [*near, 2, 3, 1, 5]
    return [value for value in listed if math.isfinite(value) and parameter.holds(value)]


def is_number(value: Any) -> bool:
    """Whether a value is a number, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(parameter: Parameter) -> bool:
    """Whether a parameter counts something: by its annotation, and without one by its default."""
    if parameter.annotation:
        return bool(re.search(r"\bint\b", parameter.annotation)) and "float" not in parameter.annotation
    return isinstance(parameter.default, int)


def beyond(parameter: Parameter) -> Iterator[Any]:
    """Numbers just beyond and well beyond the ends of a range, and one that is in none."""
    low, high, is_whole = parameter.low, parameter.high, _is_whole(parameter)
    assert low is not None
    assert high is not None
    for end, is_open, outwards in ((low, parameter.low_open, -1), (high, parameter.high_open, 1)):
        if math.isfinite(end):
            if is_open:
                yield int(end) if is_whole else end
            yield from (int(end) + outwards,) if is_whole else (end + outwards * 1e-3, end + outwards)
    if not is_whole:
        yield math.nan


def ends(parameter: Parameter) -> Iterator[Any]:
    """The ends of a range that are in it."""
    for end, is_open in ((parameter.low, parameter.low_open), (parameter.high, parameter.high_open)):
        if end is not None and math.isfinite(end) and not is_open:
            yield int(end) if _is_whole(parameter) else end
