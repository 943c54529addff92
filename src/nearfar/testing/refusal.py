"""Whether an error says what is wrong with the inputs, or is only what happened to go wrong first."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from nearfar.errors import NearfarError
from nearfar.spec import LossSpec
from nearfar.testing.law import LawBroken, NotApplicable
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject
from nearfar.told import told

__all__ = ["attempt", "names_what_is_wrong", "settled"]

_Result = TypeVar("_Result")

#: What there is in a batch: an error with none of these words, nor the name of an input, explains nothing.
_WORDS = "embedding label batch sample class pair positive negative triplet reference ref_emb indices"


def names_what_is_wrong(subject: Subject, error: BaseException) -> bool:
    """Whether an error is nearfar's or a ValueError, and speaks of the inputs rather than of what tripped over them."""
    if not isinstance(error, NearfarError | ValueError):
        return False
    inputs = subject.loss.inputs if isinstance(subject.spec, LossSpec) else ()
    named = {word.removesuffix("es" if word.endswith("xes") else "s") for i in inputs for word in (i, *i.split("_"))}
    return re.search("|".join(map(re.escape, sorted({*named, *_WORDS.split()}))), str(error).lower()) is not None


def attempt(subject: Subject, scene: Scene, what: str, run: Callable[[], _Result], **arguments: Any) -> _Result | None:
    """What ``run`` returns; None where the part, made with ``arguments``, refuses the scene by name.

    Raises
    ------
    LawBroken
        It fails in any other way; ``what`` opens the message.
    """
    try:
        return run()
    except NotApplicable:
        raise
    except LawBroken as error:
        raise LawBroken(f"{what}: {error}", scene, **arguments) from error
    except Exception as error:
        if names_what_is_wrong(subject, error):
            return None
        raise LawBroken(
            f"{what}: {told(error)}, which is no error of nearfar's nor a ValueError that names what is wrong with the "
            "inputs",
            scene,
            **arguments,
        ) from error


def settled(subject: Subject, scene: Scene, what: str, **arguments: Any) -> Tensor | None:
    """The value of a loss made with ``arguments`` where it and its gradient are finite; None where it refuses by name.

    Raises
    ------
    LawBroken
        It does neither; ``what`` opens the message.
    """

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        return subject.value(scene, **arguments), subject.gradients(scene, **arguments)

    found = attempt(subject, scene, what, run, **arguments)
    if found is None:
        return None
    value, gradients = found
    if not value.isfinite():
        raise LawBroken(f"{what}: the value is {float(value)}", scene, **arguments)
    for name, gradient in gradients.items():
        if not gradient.isfinite().all():
            message = f"{what}: the value is {float(value):.6g}, but the gradient of {name} is not finite"
            raise LawBroken(message, scene, **arguments)
    return value
