"""One check, by its id: as reports name it."""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Iterable

from nearfar.errors import UnknownPart
from nearfar.registry import default_registry
from nearfar.testing.check import Check, checks_by, subjects_of
from nearfar.testing.law import LAWS

__all__ = ["find_check"]


def find_check(id: str, *, seed: int = 0) -> Check:
    """The check of an id; :meth:`Check.hold` raises what tells of a law that is not kept.

    Parameters
    ----------
    id
        ``namespace.part::law`` or ``namespace.part::law[case]``, as reports have it. A plugin that is not installed
        is first found by :func:`find_plugin`.
    seed
        What everything random is started from.

    Raises
    ------
    UnknownPart
        There is no such check; the message says what of the id nothing has.
    """
    name, _, key = id.partition("::")
    law = key.partition("[")[0]
    subjects = {subject.name: subject for subject in subjects_of(default_registry(), _namespace(name), seed=seed)}
    if name not in subjects:
        raise UnknownPart(f"no check is of {name!r}{_hint(name, subjects)}", name=id)
    if law not in LAWS:
        raise UnknownPart(f"there is no law {law!r}{_hint(law, LAWS)}", name=id)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = {check.id: check for check in checks_by([LAWS[law]], [subjects[name]])}
    if id not in found:
        why = f"; there are {', '.join(found)}" if found else ": the law says nothing of it"
        raise UnknownPart(f"there is no check {id!r}{why}", name=id)
    return found[id]


def _namespace(name: str) -> str:
    return name.partition(".")[0]


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
