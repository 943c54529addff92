"""Names → entries: list, find, resolve, suggest, register."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from nearfar.contributions import CommandSpec, RecipeSpec
from nearfar.discovery import Plugin, discover
from nearfar.errors import AmbiguousPart, ArgumentError, DeprecatedName, PluginError, RegistrationError, UnknownPart
from nearfar.spec import KINDS, LossSpec, PartSpec, is_identifier

#: Plugins whose parts answer to their full name only, so that they never make a bare name ambiguous.
QUALIFIED_ONLY = frozenset({"pml"})

LOCAL = "local"

_Contribution = TypeVar("_Contribution", RecipeSpec, CommandSpec)


@dataclass(frozen=True, slots=True)
class Entry:
    """A part as it is registered: its spec, its plugin and, for parts of this session, its class."""

    spec: PartSpec
    plugin: Plugin
    target: Any = None

    @property
    def kind(self) -> str:
        return self.spec.kind

    @property
    def namespace(self) -> str:
        return self.plugin.namespace

    @property
    def full_name(self) -> str:
        """``namespace.name``, which always works."""
        return f"{self.plugin.namespace}.{self.spec.name}"


class Registry:
    """Every part of every active plugin, by name.

    Parameters
    ----------
    plugins
        What :func:`nearfar.discovery.discover` found.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.plugins: list[Plugin] = list(plugins)
        self._entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        for plugin in self.plugins:
            for spec in plugin.specs:
                entry = Entry(spec, plugin)
                self._entries[spec.kind][entry.full_name] = entry
        self._index()

    def _index(self) -> None:
        """Make the tables of every name a part answers to: full, then bare where it may."""
        self._names: dict[str, dict[str, list[tuple[Entry, bool]]]] = {kind: {} for kind in KINDS}
        for kind, entries in self._entries.items():
            names = self._names[kind]
            for entry in entries.values():
                spec = entry.spec
                answers = dict.fromkeys(spec.deprecated, True) | dict.fromkeys((spec.name, *spec.aliases), False)
                for name, former in answers.items():
                    names.setdefault(f"{entry.namespace}.{name}", []).append((entry, former))
                    if entry.namespace not in QUALIFIED_ONLY:
                        names.setdefault(name, []).append((entry, former))

    def entries(self, kind: str) -> list[Entry]:
        """All entries of a kind, in natural order of their full names."""
        return sorted(self._entries[kind].values(), key=lambda entry: _natural(entry.full_name))

    def short_name(self, entry: Entry) -> str:
        """The bare name where it is enough, the full name where it is not."""
        answers = self._names[entry.kind].get(entry.spec.name, ())
        return entry.spec.name if [found for found, _ in answers] == [entry] else entry.full_name

    def find(
        self,
        kind: str,
        pattern: str | Sequence[str] = "*",
        *,
        exclude: str | Sequence[str] = (),
        family: str | None = None,
        plugin: str | None = None,
        inputs: str | None = None,
    ) -> list[Entry]:
        """Entries whose name matches a shell pattern.

        Parameters
        ----------
        kind
            ``"loss"``, ``"miner"``, ``"reducer"`` or ``"distance"``.
        pattern, exclude
            One or more shell patterns, matched without regard to case against the bare name, the full
            name and the aliases.
        family
            Only parts of this family.
        plugin
            Only parts of the plugin of this namespace.
        inputs
            Only losses that take an input of this name, such as ``"embeddings"`` or ``"pred_boxes"``, needed or not.
        """
        wanted, unwanted = _patterns(pattern), _patterns(exclude)

        def matches(entry: Entry, patterns: Sequence[str]) -> bool:
            names = [entry.full_name, entry.spec.name, *entry.spec.aliases]
            return any(fnmatch.fnmatchcase(name.lower(), p.lower()) for p in patterns for name in names)

        def takes(entry: Entry) -> bool:
            if inputs is None:
                return True
            return isinstance(entry.spec, LossSpec) and inputs in (*entry.spec.inputs, *entry.spec.optional_inputs)

        return [
            entry
            for entry in self.entries(kind)
            if matches(entry, wanted)
            and not matches(entry, unwanted)
            and family in (None, entry.spec.family)
            and plugin in (None, entry.namespace)
            and takes(entry)
        ]

    def recipes(self) -> dict[str, tuple[RecipeSpec, Plugin]]:
        """What plugins show as recipes, with whose they are: by bare names, and in full where several share one."""
        return _by_name((spec, plugin) for plugin in self.plugins for spec in plugin.recipes)

    def recipe(self, name: str) -> RecipeSpec:
        """The recipe of that name, bare or in full.

        Raises
        ------
        UnknownPart
            None has it; the message has the closest names.
        """
        if (shown := self._recipe_of(name)) is not None:
            return shown
        found = self.recipes()
        if "loss" in self.kinds_of(name):
            raise UnknownPart(
                f"{name!r} is a loss and no recipe with a name: train with it by --criterion {name}", name=name
            )
        close = difflib.get_close_matches(name, found, n=3)
        meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise UnknownPart(
            f"no plugin shows a recipe {name!r}; {meant}nearfar show recipes lists them", name=name, suggestions=close
        )

    def _recipe_of(self, name: str) -> RecipeSpec | None:
        for short, (spec, plugin) in self.recipes().items():
            if name in (short, f"{plugin.namespace}.{spec.name}"):
                return spec
        return None

    def commands(self, group: str) -> dict[str, tuple[CommandSpec, Plugin]]:
        """What plugins add below a command, ``"bench"`` or ``"plot"``; named as :meth:`recipes` are."""
        found = ((spec, plugin) for plugin in self.plugins for spec in plugin.commands)
        return _by_name((spec, plugin) for spec, plugin in found if spec.group == group)

    def resolve(self, kind: str, name: str) -> Entry:
        """The one entry of ``kind`` that answers to ``name``.

        Raises
        ------
        UnknownPart
            Nothing answers to it; the message has the closest names, or why the plugin failed.
        AmbiguousPart
            Several plugins have a part of that bare name.
        """
        found = self._names[kind].get(name, [])
        if not found:
            raise UnknownPart(self._explain_unknown(kind, name), name=name, suggestions=self.suggest(kind, name))
        if len(found) > 1:
            full = sorted(entry.full_name for entry, _ in found)
            raise AmbiguousPart(
                f"the {kind} name {name!r} is ambiguous: write {' or '.join(full)}", name=name, suggestions=full
            )
        (entry, former) = found[0]
        if former:
            warnings.warn(
                f"the {kind} {name!r} is now called {self.short_name(entry)!r}; the former name will go",
                DeprecatedName,
                stacklevel=3,
            )
        return entry

    def kinds_of(self, name: str) -> list[str]:
        """The kinds in which ``name`` is known."""
        return [kind for kind in KINDS if name in self._names[kind]]

    def suggest(self, kind: str, name: str, limit: int = 4) -> list[str]:
        """The names closest to ``name``, best first."""
        short = {known: self.short_name(found[0][0]) for known, found in self._names[kind].items()}
        close = difflib.get_close_matches(name, short, n=3 * limit, cutoff=0.7)
        # `face` should find `arcface`, which no edit distance would.
        inside = [known for known in sorted(short, key=len) if len(name) > 3 and name in known]
        return list(dict.fromkeys(short[known] for known in (*close, *inside)))[:limit]

    def _explain_unknown(self, kind: str, name: str) -> str:
        namespace, _, _ = name.rpartition(".")
        for plugin in self.plugins if namespace else ():
            if plugin.namespace == namespace and plugin.status != "active":
                return f"{name!r} is not available: the plugin {namespace!r} is {plugin.status} ({plugin.reason})"
        message = f"no {kind} is called {name!r}"
        if others := [other for other in self.kinds_of(name) if other != kind]:
            goes = f", which goes into a loss: LOSS({others[0]}={name})" if kind == "loss" else ""
            return f"{message}; there is a {' and a '.join(others)} of that name{goes}"
        if kind == "loss" and (shown := self._recipe_of(name)) is not None:
            return f"{message}: it is a recipe, whose text is to be given: {shown.recipe}"
        close = self.suggest(kind, name)
        if namespace and namespace not in {plugin.namespace for plugin in self.plugins}:
            then = f"did you mean {_or(close)}?" if close else "`nearfar plugins` lists those that are"
            return f"{message}: no plugin {namespace!r} is installed; {then}"
        if close:
            return f"{message}; did you mean {_or(close)}?"
        return f"{message}; `nearfar list` shows what there is"

    def register(self, spec: PartSpec, target: Any) -> Entry:
        """Add a part to the plugin ``local``, for this process.

        Raises
        ------
        RegistrationError
            The name is not an identifier, or taken by another part of this session.
        """
        for entry in list(self._entries[spec.kind].values()):
            names = {spec.name, *spec.aliases}
            if entry.namespace == LOCAL and entry.spec.name != spec.name and names & {entry.spec.name}:
                raise RegistrationError(f"the {spec.kind} name {spec.name!r} is taken by {entry.full_name}")
        local = next((plugin for plugin in self.plugins if plugin.namespace == LOCAL), None)
        specs = [s for s in (local.specs if local else ()) if (s.kind, s.name) != (spec.kind, spec.name)]
        plugin = Plugin(
            namespace=LOCAL, distribution="this session", version="", module="__main__", specs=(*specs, spec)
        )
        self.plugins = sorted(
            [p for p in self.plugins if p.namespace != LOCAL] + [plugin], key=lambda plugin: plugin.namespace
        )
        for kind, entries in self._entries.items():
            for full_name, entry in entries.items():
                if entry.namespace == LOCAL:
                    self._entries[kind][full_name] = Entry(entry.spec, plugin, entry.target)
        entry = Entry(spec, plugin, target)
        self._entries[spec.kind][entry.full_name] = entry
        self._index()
        return entry

    def unregister(self, kind: str, name: str) -> None:
        """Remove a part that :meth:`register` added.

        Raises
        ------
        UnknownPart
            This session registered no such part.
        """
        full_name = f"{LOCAL}.{name.removeprefix(f'{LOCAL}.')}"
        if self._entries[kind].pop(full_name, None) is None:
            raise UnknownPart(f"this session registered no {kind} called {name!r}", name=name)
        self._index()


def _by_name(found: Iterable[tuple[_Contribution, Plugin]]) -> dict[str, tuple[_Contribution, Plugin]]:
    """By bare names, and by ``namespace.name`` what shares one with another; in natural order."""
    each = list(found)
    counts = Counter(spec.name for spec, _ in each)
    named = {spec.name if counts[spec.name] == 1 else f"{p.namespace}.{spec.name}": (spec, p) for spec, p in each}
    return dict(sorted(named.items(), key=lambda item: _natural(item[0])))


def _patterns(pattern: str | Sequence[str]) -> Sequence[str]:
    if isinstance(pattern, str):
        return (pattern,)
    if not isinstance(pattern, Iterable) or not all(isinstance(each, str) for each in pattern):
        raise ArgumentError(f"a pattern is a text such as '*face*', or several; got {pattern!r}")
    return tuple(pattern)


def _natural(name: str) -> list[tuple[int, str | int]]:
    """A sort key under which ``v2`` comes before ``v10``."""
    return [(0, int(piece)) if piece.isdigit() else (1, piece) for piece in re.split(r"(\d+)", name.lower()) if piece]


def _or(names: Sequence[str]) -> str:
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def require_active(plugins: Iterable[Plugin], environ: Mapping[str, str] | None = None) -> None:
    """Under ``NEARFAR_STRICT=1``, raise :class:`PluginError` unless every plugin is active."""
    environ = os.environ if environ is None else environ
    if environ.get("NEARFAR_STRICT", "") in ("", "0"):
        return
    bad = [f"{p.namespace} ({p.provider}) is {p.status}: {p.reason}" for p in plugins if p.status != "active"]
    if bad:
        raise PluginError("NEARFAR_STRICT is set and not every plugin is active: " + "; ".join(bad))


@functools.cache
def default_registry() -> Registry:
    """The registry of what is installed, made at the first call."""
    plugins = discover()
    require_active(plugins)
    return Registry(plugins)


_FILTERS = ("exclude", "family", "plugin", "inputs")


def list_parts(kind: str, pattern: str | Sequence[str] = "*", /, **filters: Any) -> list[str]:
    """Names of parts; see :meth:`Registry.find` for the filters."""
    for name in filters:
        if name not in _FILTERS:
            close = difflib.get_close_matches(name, _FILTERS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ArgumentError(f"no filter {name!r}; {hint}parts are listed by {', '.join(_FILTERS)}")
    registry = default_registry()
    return [registry.short_name(entry) for entry in registry.find(kind, pattern, **filters)]


def check_local_name(name: str) -> str:
    """Return ``name``, or raise :class:`RegistrationError` when no recipe could hold it."""
    if not is_identifier(name):
        raise RegistrationError(f"{name!r} is not an identifier, so no recipe can name it")
    return name


def list_losses(pattern: str | Sequence[str] = "*", **filters: Any) -> list[str]:
    """Names of losses; ``list_losses("*face*", exclude="pml.*")``. See :meth:`Registry.find` for the filters."""
    return list_parts("loss", pattern, **filters)


def list_miners(pattern: str | Sequence[str] = "*", **filters: Any) -> list[str]:
    """Names of miners; see :meth:`Registry.find` for the filters."""
    return list_parts("miner", pattern, **filters)


def list_reducers(pattern: str | Sequence[str] = "*", **filters: Any) -> list[str]:
    """Names of reducers; see :meth:`Registry.find` for the filters."""
    return list_parts("reducer", pattern, **filters)


def list_distances(pattern: str | Sequence[str] = "*", **filters: Any) -> list[str]:
    """Names of distances; see :meth:`Registry.find` for the filters."""
    return list_parts("distance", pattern, **filters)


def list_plugins() -> list[Plugin]:
    """Every plugin that was found, with its status and, where it is not active, the reason."""
    return list(default_registry().plugins)
