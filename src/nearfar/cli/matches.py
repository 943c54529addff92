"""What ``nearfar list`` says where no part matches."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence

from nearfar.registry import Entry, Registry
from nearfar.spec import LossSpec

__all__ = ["nothing_matches"]

#: So many names are suggested.
_SHOWN = 4


def nothing_matches(
    registry: Registry, kinds: Sequence[str], patterns: Sequence[str], *, family: str | None, inputs: str | None
) -> str:
    """A sentence: which word no part has, and the nearest that some have.

    Parameters
    ----------
    registry
        Where was looked.
    kinds
        Which kinds were asked for.
    patterns, family, inputs
        What was asked for, as :meth:`nearfar.registry.Registry.find` takes it.
    """
    entries = [entry for kind in kinds for entry in registry.entries(kind)]
    families = {entry.spec.family for entry in entries} - {""}
    if family is not None and family not in families:
        return f"no part is of the family {family!r}; {_meant(family, families)}"
    taken = {name for entry in entries for name in _inputs(entry)}
    if inputs is not None and inputs not in taken:
        return f"no loss takes {inputs!r}; {_meant(inputs, taken)}"
    if patterns and not any(registry.find(kind, patterns) for kind in kinds):
        return "; ".join(_near(registry, kinds, pattern) for pattern in patterns)
    return "no part matches all of that; `nearfar list` without a pattern shows all"


def _inputs(entry: Entry) -> tuple[str, ...]:
    return (*entry.spec.inputs, *entry.spec.optional_inputs) if isinstance(entry.spec, LossSpec) else ()


def _meant(said: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(said, sorted(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"


def _near(registry: Registry, kinds: Sequence[str], pattern: str) -> str:
    """Names that have the pattern within them, else names that are much like it."""
    word = pattern.strip("*")
    wider = f"*{word}*"
    inside = [registry.short_name(entry) for kind in kinds for entry in registry.find(kind, wider)] if word else []
    names = sorted(inside, key=lambda name: ("." in name, len(name)))
    names = names or list(dict.fromkeys(name for kind in kinds for name in registry.suggest(kind, word)))
    said = f"no {kinds[0] if len(kinds) == 1 else 'part'} is called {pattern!r}"
    if not names:
        return f"{said}; `nearfar list` without a pattern shows all"
    more = f" nearfar list {shlex.quote(wider)} shows all {len(inside)} with it" if len(inside) > _SHOWN else ""
    return f"{said}; did you mean {', '.join(names[:_SHOWN])}?{more}"
