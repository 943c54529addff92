"""What is installed, what is wrong with it, and the command that mends it.

Each function looks at one thing and says what it found. What may fail when it is imported is imported by
:mod:`nearfar.probe`, in a process of its own.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import platform
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

from nearfar import __version__
from nearfar.cores import usable_cores
from nearfar.discovery import RESERVED, Plugin, canonical, discover
from nearfar.hookspecs import PROJECT
from nearfar.probe import PACKAGES, look
from nearfar.source import declares

__all__ = ["Finding", "examine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    area
        What it is about, in a word: ``torch``, ``plugin`` …
    says
        What was found.
    level
        ``ok``; ``note`` for what is worth knowing; ``wrong`` for what does not work.
    mend
        The command that mends it, or what to do where there is none.
    """

    area: str
    says: str
    level: Literal["ok", "note", "wrong"] = "ok"
    mend: str = ""

    def to_dict(self) -> dict[str, str]:
        """As JSON-serialisable data."""
        return asdict(self)


def examine(*, no_plugin: Sequence[str] = ()) -> list[Finding]:
    """Look at everything.

    Parameters
    ----------
    no_plugin
        The names given to ``--no-plugin``, which the command line has put into ``NEARFAR_BLOCK``.
    """
    found = discover()
    requirements = metadata.requires(PROJECT) if installed(PROJECT) else None
    seen = look(modules_of(found))
    return [
        *this_program(),
        *dependencies(requirements or ()),
        *packages({name: seen[name] for name in PACKAGES if name in seen}),
        *extras(requirements or ()),
        *plugins(found),
        *their_requirements(found),
        *selection(found, os.environ, no_plugin),
        *parts(found, {name: row["error"] for name, row in seen.items() if row.get("error")}),
    ]


def installed(distribution: str) -> str:
    """The version of a distribution; empty where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


# ---- Python and nearfar


def this_program() -> Iterator[Finding]:
    """Python, the platform, and nearfar itself."""
    implementation = platform.python_implementation()
    machine = f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield Finding(area="python", says=f"{platform.python_version()} ({implementation}), {machine}")
    version = installed(PROJECT)
    if not version:
        yield Finding(
            area=PROJECT,
            says=f"{__version__} runs from a folder but is not installed, so its own parts have no entry point",
            level="wrong",
            mend="pip install nearfar",
        )
    elif version != __version__:
        yield Finding(
            area=PROJECT,
            says=f"the code is of version {__version__}, but {version} is what is installed",
            level="wrong",
            mend=f"pip install --force-reinstall --no-deps nearfar=={__version__}",
        )
    else:
        yield Finding(area=PROJECT, says=version)


def dependencies(requirements: Iterable[str], version_of: Callable[[str], str] = installed) -> Iterator[Finding]:
    """What nearfar requires, and what of that it does not find.

    Parameters
    ----------
    requirements
        As a distribution's metadata has them.
    version_of
        Distribution → version, empty where it is not installed.
    """
    right = []
    for name, specifier in _required(requirements):
        if problem := _unmet(name, specifier, version_of(name)):
            yield Finding(area="package", says=problem, level="wrong", mend=f"pip install '{name}{specifier}'")
        else:
            right.append(f"{name} {version_of(name)}")
    if right:
        yield Finding(area="package", says=", ".join(right))


def extras(requirements: Iterable[str], version_of: Callable[[str], str] = installed) -> Iterator[Finding]:
    """Which optional parts of nearfar are complete."""
    requirements = list(requirements)
    named = dict.fromkeys(
        name for text in requirements for name in re.findall(r"""extra\s*==\s*['"]([\w-]+)['"]""", text)
    )
    for extra in sorted(set(named) - {"all"}):  # which is the others together
        wanted = [(n, s, version_of(n)) for n, s in _required(requirements, extra)]
        problems = [problem for n, s, version in wanted if (problem := _unmet(n, s, version))]
        mend = f"pip install 'nearfar[{extra}]'"
        if not problems:
            yield Finding(area="extra", says=f"{extra}: complete")
        elif any(version and _unmet(n, s, version) for n, s, version in wanted):
            yield Finding(area="extra", says=f"{extra}: {'; '.join(problems)}", level="wrong", mend=mend)
        else:
            yield Finding(area="extra", says=f"{extra}: {'; '.join(problems)}", level="note", mend=mend)


def _required(requirements: Iterable[str], extra: str = "") -> Iterator[tuple[str, Any]]:
    """Name and specifier of what is required here and now: by the core, or by one of its extras alone."""
    if importlib.util.find_spec("packaging") is None:
        return
    from packaging.requirements import Requirement

    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        by_core = marker is None or marker.evaluate({"extra": ""})
        if by_core if not extra else (not by_core and marker is not None and marker.evaluate({"extra": extra})):
            yield requirement.name, requirement.specifier


def _unmet(name: str, specifier: Any, version: str) -> str:
    if not version:
        return f"{name} is not installed"
    return "" if specifier.contains(version, prereleases=True) else f"{name} {version} is not {specifier}"


# ---- torch and what is built on it


def packages(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """What came of importing torch and what needs it, and the device.

    Parameters
    ----------
    found
        What :func:`nearfar.probe.look` returns of packages.
    """
    for name, row in found.items():
        version = row.get("version") or installed(name)
        if error := row.get("error"):
            mend = f"pip install --upgrade --force-reinstall {name}"
            if name == "torchvision":
                error = f"{error}{_made_for(installed('torch'))}"
                mend = "pip install --upgrade torch torchvision"
            yield Finding(area=name, says=f"{version} cannot be imported: {error}", level="wrong", mend=mend)
        else:
            yield Finding(area=name, says=version)
        if name == "torch" and not error:
            yield from _device(row)


def _made_for(torch: str) -> str:
    """Which torch this torchvision asks for, where that is another."""
    for name, specifier in _required(metadata.requires("torchvision") or () if installed("torchvision") else ()):
        if name == "torch" and not specifier.contains(torch, prereleases=True):
            return f" (it is made for torch{specifier}, but torch {torch} is installed)"
    return ""


def _device(row: Mapping[str, Any]) -> Iterator[Finding]:
    build = f"torch is built for CUDA {row['cuda_build']}" if row["cuda_build"] else "torch is built without CUDA"
    for warning in row["warnings"]:
        mend = "update the driver of the GPU, or install a torch that is built for it"
        yield Finding(area="device", says=f"torch cannot use the GPU: {warning}", level="wrong", mend=mend)
    if row["gpus"]:
        names = ", ".join(f"{n} × {gpu}" if n > 1 else gpu for gpu, n in Counter(row["gpus"]).items())
        yield Finding(area="device", says=f"cuda: {names}; {build}")
    elif row["mps"]:
        yield Finding(area="device", says="mps: the GPU of an Apple computer")
    else:
        yield Finding(area="device", says=f"cpu, no GPU; {build}")
    cores, threads = usable_cores(), row["threads"]
    said = f"{threads} for {cores} {'core' if cores == 1 else 'cores'}"
    if threads > cores:
        mend = f"export OMP_NUM_THREADS={cores}"
        yield Finding(area="threads", says=f"{said}: they wait for each other", level="note", mend=mend)
    else:
        yield Finding(area="threads", says=said)


# ---- plugins


def plugins(found: Sequence[Plugin]) -> Iterator[Finding]:
    """Every plugin, and first-party ones of another version than the core."""
    for plugin in found:
        name = f"{plugin.namespace} ({plugin.provider})"
        wanted = _lockstep(plugin)
        if plugin.status == "blocked":
            yield Finding(area="plugin", says=f"{name} is left out: {plugin.reason}", level="note")
        elif wanted:
            says = f"{name} is of another version than nearfar {__version__}, its own"
            yield Finding(area="plugin", says=says, level="wrong", mend=f"pip install '{wanted}'")
        elif plugin.status == "active":
            number = len(plugin.specs)
            yield Finding(area="plugin", says=f"{name}: {number} {'part' if number == 1 else 'parts'}")
        else:
            says = f"{name} is {plugin.status}: {plugin.reason}"
            yield Finding(area="plugin", says=says, level="wrong", mend=_mend(plugin))
    inactive = [plugin.namespace for plugin in found if plugin.status != "active"]
    if inactive and os.environ.get("NEARFAR_STRICT", "") not in ("", "0"):
        says = f"NEARFAR_STRICT is set and not every plugin is active ({', '.join(inactive)}), so every command fails"
        yield Finding(area="plugin", says=says, level="wrong", mend="unset NEARFAR_STRICT")


def their_requirements(found: Iterable[Plugin], version_of: Callable[[str], str] = installed) -> Iterator[Finding]:
    """What plugins require beyond nearfar, and do not find; nearfar's version is what a status says."""
    distributions = {canonical(p.distribution): p.namespace for p in found if p.status not in ("blocked", "conflict")}
    for distribution, namespace in distributions.items():
        if distribution == PROJECT:
            continue
        try:
            requirements = metadata.requires(distribution) or ()
        except metadata.PackageNotFoundError:
            continue
        for name, specifier in _required(requirements):
            problem = "" if canonical(name) == PROJECT else _unmet(name, specifier, version_of(name))
            if problem:
                says = f"{namespace} ({distribution}) requires {name}{specifier}: {problem}"
                yield Finding(area="plugin", says=says, level="wrong", mend=f"pip install '{name}{specifier}'")


def _lockstep(plugin: Plugin) -> str:
    """What to install in place of a first-party plugin of another version; empty where nothing."""
    distribution = canonical(plugin.distribution)
    ours = RESERVED.get(plugin.namespace) == distribution != PROJECT
    return f"{distribution}=={__version__}" if ours and plugin.version != __version__ else ""


def _mend(plugin: Plugin) -> str:
    without = f"export NEARFAR_BLOCK={plugin.distribution}"
    if plugin.status == "conflict":
        return f"pip uninstall {plugin.distribution}, or {without}"
    if plugin.status == "incompatible":
        return f"pip install --upgrade nearfar {plugin.distribution}, or {without}"
    return f"pip install --upgrade {plugin.distribution}, or {without}"


def selection(found: Iterable[Plugin], environ: Mapping[str, str], no_plugin: Sequence[str] = ()) -> Iterator[Finding]:
    """Names that are to be loaded or left out, and that no plugin has."""
    known = {name for plugin in found for name in (plugin.namespace, canonical(plugin.distribution))}
    said = {
        "--no-plugin": list(no_plugin),
        "NEARFAR_BLOCK": [name for name in _split(environ.get("NEARFAR_BLOCK", "")) if name not in no_plugin],
        "NEARFAR_PLUGINS": _split(environ.get("NEARFAR_PLUGINS", "")),
    }
    for where, names in said.items():
        for name in names:
            if name in known or canonical(name) in known:
                continue
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"write {close[0]!r}" if close else "`nearfar plugins` lists what there is"
            says = f"no plugin is called {name!r}, so it changes nothing"
            yield Finding(area=where, says=says, level="wrong", mend=hint)


def _split(text: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", text) if name]


# ---- parts


def modules_of(found: Iterable[Plugin]) -> list[str]:
    """The modules of all parts whose optional package is there; not the packages that are looked at for themselves."""
    named = dict.fromkeys(
        target.partition(":")[0]
        for plugin in found
        for spec in plugin.specs
        if not spec.requires or _available(spec.requires)
        for target in filter(None, (spec.target, spec.definition))
    )
    return [module for module in named if module not in PACKAGES.values()]


def parts(found: Iterable[Plugin], broken: Mapping[str, str]) -> Iterator[Finding]:
    """Parts that cannot be made: of a package that is not installed, whose class is not where the spec says, or whose
    module cannot be imported.

    Parameters
    ----------
    found
        The plugins.
    broken
        Module → what its import raised.
    """
    for plugin in found:
        missing: dict[str, list[str]] = {}
        nowhere: dict[str, list[str]] = {}
        unimported: dict[str, list[str]] = {}
        for spec in plugin.specs:
            name = f"{plugin.namespace}.{spec.name}"
            if spec.requires and not _available(spec.requires):
                missing.setdefault(spec.requires, []).append(name)
                continue
            for target in filter(None, (spec.target, spec.definition)):
                module = target.partition(":")[0]
                if _declared(target) is False:
                    nowhere.setdefault(target, []).append(name)
                elif module in broken:
                    unimported.setdefault(module, []).append(name)
        for distribution, names in missing.items():
            says = f"{_some(names)} needs {distribution}, which is not installed"
            yield Finding(area="part", says=says, level="note", mend=f"pip install {distribution}")
        for target, names in nowhere.items():
            module, _, wanted = target.partition(":")
            says = f"{_some(names)} should be {wanted} of {module}, and there is none"
            yield Finding(area="part", says=says, level="wrong", mend=_reinstall(plugin))
        for module, names in unimported.items():
            says = f"{_some(dict.fromkeys(names))} cannot be imported from {module}: {broken[module]}"
            yield Finding(area="part", says=says, level="wrong", mend=_reinstall(plugin))


def _available(distribution: str) -> bool:
    return bool(installed(distribution)) or importlib.util.find_spec(distribution.replace("-", "_")) is not None


def _declared(target: str) -> bool | None:
    if importlib.util.find_spec("griffe") is None:
        return None
    module, _, name = target.partition(":")
    return declares(module, name)


def _reinstall(plugin: Plugin) -> str:
    return f"pip install --upgrade --force-reinstall {plugin.distribution}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
