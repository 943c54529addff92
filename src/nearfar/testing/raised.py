"""What a part raised, in the words of a report."""

from __future__ import annotations

import traceback
from pathlib import Path

from nearfar.testing.exercise import usual
from nearfar.testing.subject import Subject

__all__ = ["formatted", "raised_by", "where"]

#: The modules that make the calls.
_HERE = Path(__file__).parent


def where(error: BaseException) -> str:
    """The innermost lines of a traceback."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return "\n".join(f"      at {Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames)


def raised_by(subject: Subject) -> BaseException | None:
    """What a plain call of a part raises."""
    try:
        subject.call(subject.make(), usual(subject))
    except (Exception, SystemExit) as error:
        return error
    return None


def formatted(error: BaseException) -> str:
    """The traceback of what a part raised, from where the checks called it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [position for position, frame in enumerate(frames) if Path(frame.filename).is_relative_to(_HERE)]
    del frames[: ours[-1] + 1 if ours and ours[-1] + 1 < len(frames) else 0]
    lines = ["Traceback (most recent call last):\n", *frames.format(), *traceback.format_exception_only(error)]
    return f"\n\n{''.join(lines)}".rstrip()
