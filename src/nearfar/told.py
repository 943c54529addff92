"""What an error says, and where in its author's code it arose."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

__all__ = ["place", "told"]

#: Packages that run an author's code or are run by it.
_OTHERS = {*sys.stdlib_module_names, "hypothesis", "numpy", "pluggy", "torch"}
#: The closeness of what is not theirs, nor nearfar's.
_OWN = 3


def told(error: BaseException, *, only_own: bool = False) -> str:
    """An error in a line: its type, its first line, and where it arose, as :func:`place` has it."""
    said = " ".join(next(iter(str(error).strip().splitlines()), "").split())
    message = f"it called sys.exit({said})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {said}"
    return message.rstrip(": ") + place(error, only_own=only_own)


def place(error: BaseException, *, only_own: bool = False) -> str:
    """The innermost line that its author wrote where an error, or what caused it, arose: ``" (line 3 of plugin.py)"``.

    Parameters
    ----------
    error
        What was raised; where it never was, it has no place: an empty string.
    only_own
        Whether that is so as well where no line is the author's. Otherwise it is one of nearfar's then, and at last
        the innermost of all.
    """
    lines = sorted((at for each in _causes(error) for at in traceback.walk_tb(each.__traceback__)), key=_closeness)
    if not lines or (only_own and _closeness(lines[-1]) < _OWN):
        return ""
    frame, line = lines[-1]
    return f" (line {line} of {Path(frame.f_code.co_filename).name})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__


def _closeness(at: tuple[FrameType, int]) -> int:
    """How close to its author's code a line is; sorted by it, lines that are equally close keep their order."""
    module = str(at[0].f_globals.get("__name__", ""))
    package = module.partition(".")[0]
    if package == "nearfar":
        return 0 if module.startswith("nearfar.testing") else 2
    return 1 if package in _OTHERS else _OWN
