"""The checks of a plugin as the cases of one pytest test."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from nearfar.errors import UnknownPart
from nearfar.registry import Registry, default_registry
from nearfar.testing.check import checks_of

if TYPE_CHECKING:
    import pytest

__all__ = ["parts"]


def parts(namespace: str, *, only: str = "*", seed: int = 0, registry: Registry | None = None) -> pytest.MarkDecorator:
    """A decorator that runs one test function once for each check of a plugin, as its argument ``check``.

    Parameters
    ----------
    namespace
        The plugin's.
    only
        A shell pattern of the names of the parts to check; ``namespace.name``, or ``name`` alone.
    seed
        What everything random in the checks is started from.
    registry
        Where the plugin is looked up; by default everything installed.

    Raises
    ------
    UnknownPart
        There is no such plugin, it is not active, or no part matches.
    """
    import pytest

    found = checks_of(default_registry() if registry is None else registry, namespace, seed=seed)
    chosen = [check for check in found if _is_one_of(check.subject.name, only)]
    if not chosen:
        raise UnknownPart(f"no part of {namespace!r} matches {only!r}", name=only)
    return pytest.mark.parametrize("check", chosen, ids=[check.id for check in chosen])


def _is_one_of(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(each, pattern) for each in (name, name.partition(".")[2]))
