"""Hold a law against every form of a part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nearfar.testing.law import LawBroken, NotApplicable
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants
from nearfar.told import told

__all__ = ["in_every_form"]


def in_every_form(subject: Subject, holds: Callable[[dict[str, Any]], None]) -> None:
    """Call ``holds`` with the arguments of every variant of a part; what the part raises is said of the variant.

    Raises
    ------
    LawBroken
        What ``holds`` raises, with the arguments that it was raised with.
    """
    for arguments in variants(subject).values():
        try:
            holds(arguments)
        except (LawBroken, NotApplicable):
            raise
        except Exception as error:
            if not arguments:
                raise
            written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            scene = getattr(error, "scene", None)
            raise LawBroken(f"with {written}: {told(error)}", scene, **arguments) from error
