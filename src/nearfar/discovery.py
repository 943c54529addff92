"""From entry points to :class:`Plugin` records; a failure is data, never an exception.

The name of an entry point in the group ``nearfar`` is the plugin's namespace. pluggy's own
``load_setuptools_entrypoints`` is not used: there one bad import aborts all, and a duplicate name is
skipped in silence.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType, ModuleType
from typing import Any, Literal

import pluggy

from nearfar import __version__, hookspecs
from nearfar.contributions import CommandSpec, RecipeSpec
from nearfar.errors import RegistrationError
from nearfar.hookspecs import PROJECT, RETURNS
from nearfar.spec import PartSpec, is_identifier
from nearfar.told import place

GROUP = "nearfar"

Status = Literal["active", "blocked", "failed", "incompatible", "conflict"]

_loading = threading.RLock()
#: Namespaces that belong to a distribution; ``local`` is what a session registers itself.
RESERVED: Mapping[str, str] = MappingProxyType(
    {
        "core": "nearfar",
        "pml": "nearfar",
        "local": "nearfar",
        "margin": "nearfar-margin",
        "pair": "nearfar-pair",
        "proxy": "nearfar-proxy",
        "iou": "nearfar-iou",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugin:
    """What became of one entry point.

    ``reason`` says in a sentence why it is not active, ``output`` what it printed while it was imported,
    and ``specs`` holds its parts, in the order in which its hooks gave them; ``recipes`` and ``commands`` what it gives
    besides.
    """

    namespace: str
    distribution: str
    version: str
    module: str
    status: Status = "active"
    reason: str = ""
    output: str = ""
    specs: tuple[PartSpec, ...] = ()
    recipes: tuple[RecipeSpec, ...] = ()
    commands: tuple[CommandSpec, ...] = ()

    @property
    def provider(self) -> str:
        """Distribution and version, as messages show them."""
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True, slots=True)
class Selector:
    """Which plugins may be loaded: the environment's allow-list and block-list."""

    allow: frozenset[str] | None = None
    block: frozenset[str] = frozenset()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Selector:
        """Read ``NEARFAR_PLUGINS`` (allow) and ``NEARFAR_BLOCK`` (block).

        Both are lists, parted by commas or spaces, of namespaces or names of distributions. The built-in
        plugins ``core`` and ``pml`` need not be on an allow-list.
        """
        environ = os.environ if environ is None else environ
        allow = environ.get("NEARFAR_PLUGINS", "")
        return cls(
            allow=_names(allow) or None,
            block=_names(environ.get("NEARFAR_BLOCK", "")),
        )

    def reason_to_block(self, namespace: str, distribution: str) -> str:
        """Why this plugin is not to be loaded; empty when it may be."""
        names = {namespace, canonical(distribution)}
        if names & self.block:
            return f"blocked by name ({', '.join(sorted(names & self.block))})"
        built_in = RESERVED.get(namespace) == PROJECT == canonical(distribution)
        if self.allow is not None and not built_in and not names & self.allow:
            return "not on the allow-list NEARFAR_PLUGINS"
        return ""


def _names(text: str) -> frozenset[str]:
    """As written, for namespaces, and as PEP 503 has it, for distributions."""
    names = [name for name in re.split(r"[,\s]+", text) if name]
    return frozenset(names) | {canonical(name) for name in names}


def canonical(distribution: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def discover(
    entry_points: Iterable[metadata.EntryPoint] | None = None, selector: Selector | None = None
) -> list[Plugin]:
    """Load every plugin that may be loaded and say what became of each.

    Parameters
    ----------
    entry_points
        Those of the group ``nearfar``; by default what is installed.
    selector
        Which may be loaded; by default what the environment says.

    Returns
    -------
    list of Plugin
        Sorted by namespace, then distribution; one for each entry point.
    """
    if entry_points is None:
        entry_points = metadata.entry_points(group=GROUP)
    selector = selector or Selector.from_environment()
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)

    candidates = [_before_import(found, selector) for found in _unique(entry_points)]
    claims: dict[str, list[Plugin]] = {}
    for plugin, _ in candidates:
        # A plugin that is blocked, or that only squats on a reserved name, claims nothing.
        if plugin.status == "active":
            claims.setdefault(plugin.namespace, []).append(plugin)
    plugins = []
    for plugin, entry_point in candidates:
        rivals = [rival for rival in claims.get(plugin.namespace, ()) if rival is not plugin]
        if plugin.status == "active" and rivals:
            names = " and ".join(sorted(claimant.provider for claimant in (plugin, *rivals)))
            reason = (
                f"the namespace {plugin.namespace!r} is claimed by {names}; uninstall one, or name one in NEARFAR_BLOCK"
            )
            plugin = _with(plugin, status="conflict", reason=reason)
        if plugin.status == "active":
            plugin = _load(plugin, entry_point, manager)
        plugins.append(plugin)
    return sorted(plugins, key=lambda plugin: (plugin.namespace, plugin.distribution))


def _with(plugin: Plugin, **changes: object) -> Plugin:
    values = {name: getattr(plugin, name) for name in Plugin.__slots__}
    return Plugin(**(values | changes))


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry point and what its distribution says of itself, read once: each look parses the file anew."""

    entry_point: metadata.EntryPoint
    distribution: str
    version: str
    requires: tuple[str, ...]

    @classmethod
    def of(cls, entry_point: metadata.EntryPoint) -> _Found:
        if entry_point.dist is None:
            return cls(entry_point, "unknown", "", ())
        about = entry_point.dist.metadata
        return cls(entry_point, about["Name"], about["Version"], tuple(about.get_all("Requires-Dist") or ()))


def _unique(entry_points: Iterable[metadata.EntryPoint]) -> list[_Found]:
    """Sort, and drop what was found twice because a distribution is on the path twice."""
    found = [_Found.of(entry_point) for entry_point in entry_points]
    first = {(f.entry_point.name, f.entry_point.value, canonical(f.distribution)): f for f in reversed(found)}
    return [first[key] for key in sorted(first)]


def _before_import(found: _Found, selector: Selector) -> tuple[Plugin, metadata.EntryPoint]:
    """Judge what can be judged without running any of the plugin's code."""
    entry_point = found.entry_point
    plugin = Plugin(
        namespace=entry_point.name,
        distribution=found.distribution,
        version=found.version,
        module=entry_point.value,
    )
    owner = RESERVED.get(plugin.namespace)
    if reason := selector.reason_to_block(plugin.namespace, plugin.distribution):
        return _with(plugin, status="blocked", reason=reason), entry_point
    if not is_identifier(plugin.namespace):
        reason = f"the entry point's name {plugin.namespace!r} is not an identifier, so it cannot be a namespace"
        return _with(plugin, status="failed", reason=reason), entry_point
    if owner and (owner != canonical(plugin.distribution) or plugin.namespace == "local"):
        reason = f"the namespace {plugin.namespace!r} belongs to {owner}; {plugin.distribution} must choose another"
        return _with(plugin, status="conflict", reason=reason), entry_point
    if reason := _unmet_requirement(found.requires):
        return _with(plugin, status="incompatible", reason=reason), entry_point
    return plugin, entry_point


def _unmet_requirement(requires: Iterable[str]) -> str:
    """Why this nearfar is not what a distribution requires; empty when it is."""
    requirements = [r for r in requires if re.match(r"nearfar(?![\w.-])", r, re.IGNORECASE)]
    if not requirements or requirements == [f"{PROJECT}=={__version__}"]:
        return ""  # plugins in lockstep are the common case, and spared the cost of importing packaging
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import Version

    # The base version, so that a development version of what is asked for counts as it.
    version = Version(Version(__version__).base_version)
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            return f"its requirement {text!r} cannot be read"
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            return f"it requires nearfar{requirement.specifier}, but nearfar {__version__} is installed"
    return ""


def _load(plugin: Plugin, entry_point: metadata.EntryPoint, manager: pluggy.PluginManager) -> Plugin:
    """Import the plugin and ask its hooks, guarded."""
    printed = io.StringIO()
    module = None
    try:
        # One thread at a time: two would leave one of their buffers where the terminal was.
        with _loading, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            module = entry_point.load()
            manager.register(module, name=plugin.namespace)
            manager.check_pending()
            answered = _ask(manager, module)
    # SystemExit too: a module that exits when it is imported must not end the program that lists it.
    except (Exception, SystemExit) as error:
        # A plugin left registered after a failed check would fail every check that follows.
        if module is not None and manager.has_plugin(plugin.namespace):
            manager.unregister(name=plugin.namespace)
        return _with(plugin, status="failed", reason=_one_sentence(error), output=printed.getvalue())
    return _with(
        plugin,
        specs=tuple(spec for spec in answered if isinstance(spec, PartSpec)),
        recipes=tuple(spec for spec in answered if isinstance(spec, RecipeSpec)),
        commands=tuple(spec for spec in answered if isinstance(spec, CommandSpec)),
        output=printed.getvalue(),
    )


def _ask(manager: pluggy.PluginManager, module: ModuleType) -> list[Any]:
    """What all hooks of a plugin return."""
    for name in vars(module):
        # Defined here and named like a hook, but without the mark pluggy looks for.
        found = getattr(module, name)
        if name in RETURNS and callable(found) and not hasattr(found, f"{PROJECT}_impl"):
            raise RegistrationError(f"{name} is not marked as a hook: put @hookimpl above it")
    others = [other for other in manager.get_plugins() if other is not module]
    specs: list[Any] = []
    for hook, returned in RETURNS.items():
        answers = manager.subset_hook_caller(hook, remove_plugins=others)()
        if hasattr(module, hook) and not answers:  # pluggy leaves out answers of None
            raise RegistrationError(f"{hook} returned None; it must return an iterable of {returned.__name__}")
        for answer in answers:
            specs.extend(_validated(answer, returned, hook))
    _refuse_duplicates(specs)
    return specs


def _validated(answer: object, expected: type[object], hook: str) -> Sequence[object]:
    if not isinstance(answer, Iterable):
        raise RegistrationError(
            f"{hook} returned {type(answer).__name__}; it must return an iterable of {expected.__name__}"
        )
    specs = list(answer)
    for spec in specs:
        if not isinstance(spec, expected):
            raise RegistrationError(f"{hook} returned {spec!r}; it must return an iterable of {expected.__name__}")
    return specs


def _refuse_duplicates(specs: Sequence[Any]) -> None:
    owners: dict[tuple[str, str], str] = {}
    for spec in specs:
        others = (*spec.aliases, *spec.deprecated) if isinstance(spec, PartSpec) else ()
        for name in sorted({spec.name, *others}):
            if (spec.kind, name) in owners:
                owner = owners[spec.kind, name]
                raise RegistrationError(f"the {spec.kind} name {name!r} is given twice, to {owner} and to {spec.name}")
            owners[spec.kind, name] = spec.name


def _one_sentence(error: BaseException) -> str:
    """What went wrong and where, on one line: errors of a plugin are shown in tables."""
    text = " ".join(str(error).split())
    if isinstance(error, RegistrationError):
        return text
    where = place(error, only_own=True)
    if isinstance(error, SystemExit):
        return f"it called sys.exit({text}) while it was imported{where}"
    name = type(error).__name__
    return (f"{name}: {text}" if text else name) + where
