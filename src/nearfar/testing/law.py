"""A law: what every part of a kind has to keep, as a function that finds out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.testing.scene import Scene
    from nearfar.testing.subject import Subject

__all__ = ["LAWS", "Law", "LawBroken", "NotApplicable", "law"]


class LawBroken(AssertionError):
    """A part does not keep a law.

    Parameters
    ----------
    message
        What the law asks and what was found.
    scene
        The inputs it was found on, so that they can be made again.
    arguments
        What the part was made with, beyond what it always needs.
    """

    def __init__(self, message: str, scene: Scene | None = None, **arguments: Any) -> None:
        super().__init__(message)
        self.scene = scene
        self.arguments = arguments


class NotApplicable(Exception):
    """A law says nothing about this part; the message says why."""


@dataclass(frozen=True, slots=True)
class Law:
    """One law.

    Attributes
    ----------
    name
        What ``pytest -k`` and a spec's ``expected_failures`` select it by.
    group
        The heading it stands under: the module it is written in.
    kinds
        The kinds of parts it is about.
    says
        The law in a sentence.
    cases
        Of a part: the cases that are checked one by one; None for a law with a single one.
    check
        Raises :class:`LawBroken` where the part does not keep it, :class:`NotApplicable` where it says nothing;
        returns what was measured, in a few words, or nothing.
    standalone
        Whether it means something of a part that cannot even be called.
    """

    name: str
    group: str
    kinds: tuple[str, ...]
    says: str
    cases: Callable[[Subject], Iterable[str]] | None
    check: Callable[..., str | None]
    standalone: bool = False

    def is_about(self, subject: Any) -> bool:
        """Whether it is about a subject, a part or a plugin: a law of miners, about one that produces what these do."""
        produced = _PRODUCED.get(self.group)
        return subject.kind in self.kinds and (produced is None or subject.miner.produces in produced)


#: Groups of laws of miners → what those miners produce.
_PRODUCED: Mapping[str, tuple[str, ...]] = {
    "miners": ("pairs", "triplets", "weights"),
    "matchers": ("matches",),
    "elements": ("elements",),
}


#: Every law, in the order in which they are written.
LAWS: dict[str, Law] = {}


def law(
    *kinds: str,
    cases: Callable[[Subject], Iterable[str]] | Iterable[str] | None = None,
    standalone: bool = False,
) -> Callable[[Callable[..., str | None]], Callable[..., str | None]]:
    """Make a law of a function ``(subject)``, or ``(subject, case)`` where it has cases; its docstring says it.

    Parameters
    ----------
    *kinds
        The kinds of parts it is about.
    cases
        The names of its cases, or a function that tells those of a part.
    standalone
        Whether it means something of a part that cannot even be called.
    """

    def add(check: Callable[..., str | None]) -> Callable[..., str | None]:
        assert check.__name__ not in LAWS, f"two laws are called {check.__name__}"
        listed = tuple(cases) if cases is not None and not callable(cases) else None
        found: Any = (lambda subject: listed) if listed is not None else cases
        says = " ".join((check.__doc__ or "").split("\n\n")[0].split())
        group = check.__module__.rpartition(".")[2]
        LAWS[check.__name__] = Law(check.__name__, group, kinds, says, found, check, standalone)
        return check

    return add
