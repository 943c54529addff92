"""Laws of a plugin as a whole."""

from __future__ import annotations

import difflib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from nearfar.discovery import GROUP, RESERVED, canonical
from nearfar.errors import AmbiguousPart
from nearfar.hookspecs import PROJECT, RETURNS
from nearfar.registry import LOCAL, QUALIFIED_ONLY
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.subject import PluginSubject

#: What takes long to load, and so waits until a part is made.
HEAVY = (
    "torch",
    "numpy",
    "timm",
    "torchvision",
    "pytorch_metric_learning",
    "lightning",
    "pandas",
    "scipy",
    "sklearn",
)
#: Seconds of the processor that loading an entry module may take: a hundred times what it takes most.
MOST_SECONDS = 0.3
#: Columns of a terminal, and a little more.
SUMMARY = 120


@law("plugin")
def not_empty(subject: PluginSubject) -> None:
    """The plugin registers a part, a recipe or a command at least."""
    plugin = subject.plugin
    if not (plugin.specs or plugin.recipes or plugin.commands):
        raise LawBroken(f"no hook of {plugin.module} returns anything; there are {', '.join(RETURNS)}")


@law("plugin")
def light(subject: PluginSubject) -> str:
    """Loading the entry module and asking its hooks imports nothing heavy and takes no time to speak of, since every
    command does it for every plugin."""
    found = _loaded_alone(subject)
    if found["heavy"]:
        listed = "; ".join(f"{name}, imported by {chain}" for name, chain in found["heavy"].items())
        raise LawBroken(
            f"loading {subject.plugin.module} imports {listed}. Leave such imports to the modules that the targets "
            "name, and keep the package's __init__ free of them"
        )
    if found["seconds"] > MOST_SECONDS:
        module = subject.plugin.module.partition(":")[0]
        raise LawBroken(
            f"loading {module} takes {found['seconds']:.2f} s of the processor, more than {MOST_SECONDS} s; "
            f"`python -X importtime -c 'import {module}'` tells what takes them"
        )
    return f"{1e3 * found['seconds']:.0f} ms"


@law("plugin")
def hooks(subject: PluginSubject) -> None:
    """Every function of the entry module that is named like a hook is one."""
    module = _entry_module(subject)
    for name, function in vars(module).items():
        own = inspect.isfunction(function) and function.__module__ == module.__name__
        is_marked = hasattr(function, f"{PROJECT}_impl")  # of a newer nearfar, and optional: else it had not loaded
        if own and name.startswith(f"{PROJECT}_") and name not in RETURNS and not is_marked:
            close = difflib.get_close_matches(name, RETURNS, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise LawBroken(f"nobody calls {name}: there is no hook of that name{meant}")


def _everything(subject: PluginSubject) -> tuple[Any, ...]:
    """All specs: of parts, recipes and commands."""
    return (*subject.plugin.specs, *subject.plugin.recipes, *subject.plugin.commands)


@law("plugin")
def repeatable(subject: PluginSubject) -> None:
    """Asked again, every hook returns equal specs."""
    module = _entry_module(subject)
    for hook, returned in RETURNS.items():
        if hasattr(module, hook):
            again: list[Any] = list(getattr(module, hook)())
            first: list[Any] = [spec for spec in _everything(subject) if isinstance(spec, returned)]
            if again != first:
                changed = sorted({s.name for s in first} ^ {s.name for s in again}) or [
                    a.name for a, b in zip(first, again, strict=False) if a != b
                ]
                raise LawBroken(
                    f"{hook} returned {len(first)} specs when it was first asked and {len(again)} when it was asked "
                    f"again; they differ in {', '.join(changed)}"
                )


@law("plugin")
def summaries(subject: PluginSubject) -> None:
    """Every summary is one line of at most 120 characters that ends with a stop, as lists show it."""
    wrong = []
    for spec in _everything(subject):
        text = spec.summary
        problems = [
            *(["is more than a line"] if "\n" in text else []),
            *([f"has {len(text)} characters"] if len(text) > SUMMARY else []),
            *(["does not end with a stop"] if not text.endswith(".") else []),
            *(["begins or ends with a space"] if text != text.strip() else []),
        ]
        wrong += [f"that of the {spec.kind} {spec.name} {' and '.join(problems)}"] if problems else []
    if wrong:
        raise LawBroken(f"a summary is one line of at most {SUMMARY} characters with a stop; {'; '.join(wrong)}")


@law("plugin")
def bare_names(subject: PluginSubject) -> None:
    """No part of nearfar's own takes another's bare name; of a third party's it is said, as such a name is ambiguous
    wherever it is written, and both have to be written in full."""
    taken = list(_ambiguous(subject))
    if not taken:
        return
    if subject.plugin.namespace in RESERVED:
        raise LawBroken(f"no bare name is given to two parts: {'; '.join(taken)}")
    raise NotApplicable(f"beside others' it is to be written in full: {'; '.join(taken)}")


def _ambiguous(subject: PluginSubject) -> Iterator[str]:
    own = subject.plugin.namespace
    for spec in subject.plugin.specs if own not in QUALIFIED_ONLY else ():
        for name in (spec.name, *spec.aliases):
            try:
                subject.registry.resolve(spec.kind, name)
            except AmbiguousPart as error:
                if any(
                    full.partition(".")[0] in RESERVED for full in error.suggestions if not full.startswith(f"{own}.")
                ):
                    yield f"{name} may be {' or '.join(error.suggestions)}"


@law("plugin")
def requirement(subject: PluginSubject) -> None:
    """The distribution has a version and requires nearfar, so that an installer brings a nearfar that fits."""
    plugin = subject.plugin
    if canonical(plugin.distribution) == PROJECT:
        raise NotApplicable("it is nearfar's own")
    try:
        about = metadata.distribution(plugin.distribution)
    except metadata.PackageNotFoundError:
        raise NotApplicable(f"there is no metadata of {plugin.distribution}") from None
    if not plugin.version:
        raise NotApplicable(f"{plugin.distribution} has a version once it is built")
    if not any(_is_nearfar(text) for text in about.requires or ()):
        raise LawBroken(f'{plugin.distribution} does not require nearfar; write dependencies = ["nearfar>=…"]')


def _is_nearfar(text: str) -> bool:
    """Whether a requirement is one of nearfar, whatever extras are asked for."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return False
    everywhere = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    return canonical(requirement.name) == PROJECT and everywhere


@law("plugin")
def serialisable(subject: PluginSubject) -> None:
    """Every spec can be written as JSON and reads back the same."""
    for spec in subject.plugin.specs:
        data = spec.to_dict()
        try:
            again = json.loads(json.dumps(data, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise LawBroken(f"the spec of the {spec.kind} {spec.name} cannot be written as JSON: {error}") from None
        if again != data:
            changed = ", ".join(name for name in data if again[name] != data[name])
            raise LawBroken(f"the spec of the {spec.kind} {spec.name} does not survive JSON: {changed}")


def _entry_module(subject: PluginSubject) -> Any:
    if subject.plugin.namespace == LOCAL:
        raise NotApplicable("its parts were registered in this session, by no entry module")
    return metadata.EntryPoint(subject.plugin.namespace, subject.plugin.module, GROUP).load()


def _loaded_alone(subject: PluginSubject) -> Any:
    """What loading the entry module imports and costs in an interpreter of its own."""
    _entry_module(subject)
    asked = json.dumps({"path": sys.path, "entry": subject.plugin.module, "heavy": HEAVY, "hooks": list(RETURNS)})
    done = subprocess.run([sys.executable, "-c", _PROBE, asked], capture_output=True, text=True, timeout=120)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LawBroken(f"in an interpreter of its own {subject.plugin.module} cannot be loaded: {said}")
    return json.loads(done.stdout.splitlines()[-1])


_PROBE = """
import importlib.metadata, json, sys, time

asked = json.loads(sys.argv[1])
sys.path[:] = asked["path"]
import nearfar, nearfar.hookspecs, nearfar.spec

heavy = {}

class Watch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in asked["heavy"]:  # the last who looks for it is who imports it; others asked whether it is there
            chain, frame = [], sys._getframe(1)
            while frame is not None:
                module = frame.f_globals.get("__name__", "?")
                if not module.startswith(("importlib", "_frozen_importlib", "__main__")):
                    chain.append(f"{module}, line {frame.f_lineno}")
                frame = frame.f_back
            heavy[name] = ", imported by ".join(dict.fromkeys(chain))
        return None

sys.meta_path.insert(0, Watch)
start = time.process_time()
found = importlib.metadata.EntryPoint("plugin", asked["entry"], "nearfar").load()
for hook in asked["hooks"]:
    if hasattr(found, hook):
        list(getattr(found, hook)())
seconds = time.process_time() - start
print()
print(json.dumps({"heavy": {n: chain for n, chain in heavy.items() if n in sys.modules}, "seconds": seconds}))
"""
