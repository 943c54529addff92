"""What a shell offers when the tab key is pressed: names of parts, plugins and families.

Each function is a ``shell_complete`` of click's. They read specs alone and load no torch. Where something is wrong they
offer nothing: a line that is being typed is no place for an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

    from nearfar.registry import Entry, Registry

__all__ = [
    "expressions",
    "families",
    "namespaces",
    "namespaces_or_folders",
    "part_names",
    "plugins",
    "recipes",
    "shown_names",
]


def part_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of parts: as short as they may be, in full where none so short begins like this."""
    registry = _registry()
    entries = [entry for kind in _kinds(ctx) for entry in registry.entries(kind)]
    return _items(_names(registry, entries, incomplete))


def shown_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of parts and of recipes, and the word for all recipes."""
    if ctx.params.get("kind"):
        return part_names(ctx, param, incomplete)
    recipes = {name: spec.summary for name, (spec, _) in _registry().recipes().items()}
    known = {"recipes": "Every recipe that a plugin shows."} | recipes if recipes else {}
    others = {name: said for name, said in known.items() if incomplete and name.startswith(incomplete)}
    return [*part_names(ctx, param, incomplete), *_items(others)]


def recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of recipes."""
    found = {name: spec.summary for name, (spec, _) in _registry().recipes().items()}
    return _items({name: said for name, said in found.items() if name.startswith(incomplete)})


def namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Namespaces of plugins that are active."""
    found = {p.namespace: p.provider for p in _registry().plugins if p.status == "active"}
    return _items({name: said for name, said in found.items() if name.startswith(incomplete)})


def namespaces_or_folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Namespaces of plugins that are active, or the folders that the shell knows of where none begins so."""
    from click.shell_completion import CompletionItem

    return namespaces(ctx, param, incomplete) or [CompletionItem(incomplete, type="dir")]


def plugins(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Namespaces of plugins, whatever their status."""
    found = {p.namespace: f"{p.provider}, {p.status}" for p in _registry().plugins}
    return _items({name: said for name, said in found.items() if name.startswith(incomplete)})


def families(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Families of parts."""
    registry = _registry()
    found = {entry.spec.family for kind in _kinds(ctx) for entry in registry.entries(kind)} - {""}
    return _items({name: "" for name in sorted(found) if name.startswith(incomplete)})


def expressions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Recipes: the last name in ``incomplete``, of the kind that its place asks for."""
    name = _LAST.search(incomplete)
    assert name is not None  # it matches the empty end of anything
    before = incomplete[: name.start()]
    kind = _kind_at(before)
    if not kind:
        return []
    registry = _registry()
    return _items(
        {before + found: said for found, said in _names(registry, registry.entries(kind), name.group()).items()}
    )


# ---- where a name stands in a recipe

# The name that is being typed, or nothing; a digit before it makes it part of a number.
_LAST = re.compile(r"(?:(?<!\w)[A-Za-z_]\w*(?:\.\w*)?)?\Z")
_SLOT = re.compile(r"\b(loss|miner|reducer|distance)\s*=\s*$")
_STRING = re.compile(r"\"[^\"]*\"|'[^']*'")


def _kind_at(before: str) -> str:
    """Which kind of part may follow; empty where none may."""
    text = _STRING.sub("", before)
    if '"' in text or "'" in text:  # within a string
        return ""
    if slot := _SLOT.search(text):
        return slot.group(1)
    # The first of a term, or of what a wrapper takes without a name; after `=` of anything else comes a number.
    return "loss" if not text.strip() or text.rstrip()[-1] in "+*([," else ""


# ---- what there is


def _registry() -> Registry:
    """What is installed, whatever NEARFAR_STRICT says of it."""
    from nearfar.discovery import discover
    from nearfar.registry import Registry

    return Registry(discover())


def _kinds(ctx: click.Context) -> Iterable[str]:
    from nearfar.spec import KINDS

    kind = ctx.params.get("kind")
    return [kind] if isinstance(kind, str) and kind in KINDS else KINDS


def _names(registry: Registry, entries: Iterable[Entry], incomplete: str) -> dict[str, str]:
    """Names that begin so, each with what it is."""
    entries = list(entries)
    short = {registry.short_name(entry): entry.spec.summary for entry in entries}
    full = {entry.full_name: entry.spec.summary for entry in entries}
    for names in (short, full):
        if found := {name: said for name, said in names.items() if name.startswith(incomplete)}:
            return found
    return {}


def _items(names: dict[str, str]) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name, help=said or None) for name, said in names.items()]
