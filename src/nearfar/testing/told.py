"""What an error says, and where in its author's code it arose."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import FrameType

__all__ = ["told"]

#: Packages that run an author's code or are run by it.
_OTHERS = {*sys.stdlib_module_names, "torch", "numpy", "hypothesis"}


def told(error: BaseException) -> str:
    """An error in a line: its type, its first line, and the innermost line of code that its author wrote.

    Where no such line is in its traceback it is one of nearfar's, and at last the innermost of all.
    """
    said = " ".join(next(iter(str(error).strip().splitlines()), "").split())
    message = f"it called sys.exit({said})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {said}"
    message = message.rstrip(": ")
    lines = sorted(traceback.walk_tb(error.__traceback__), key=_closeness)
    if not lines:
        return message
    frame, line = lines[-1]
    return f"{message} (line {line} of {Path(frame.f_code.co_filename).name})"


def _closeness(at: tuple[FrameType, int]) -> int:
    """How close to its author's code a line is; sorted by it, lines that are equally close keep their order."""
    module = str(at[0].f_globals.get("__name__", ""))
    package = module.partition(".")[0]
    if package == "nearfar":
        return 0 if module.startswith("nearfar.testing") else 2
    return 1 if package in _OTHERS else 3
