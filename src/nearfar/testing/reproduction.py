"""A script that shows a failure again: the part, what it was called with, and the check that found it."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.registry import LOCAL
from nearfar.testing.literals import Unwritable, importable, literal, same
from nearfar.testing.scene import Scene
from nearfar.testing.subject import PluginSubject, Subject
from nearfar.told import told

__all__ = ["Call", "script"]


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a part on which a law was found not to be kept.

    Attributes
    ----------
    subject, scene
        The part, and what it was called with.
    arguments
        What it was made with beyond its example.
    told
        What is reported.
    """

    subject: Subject
    scene: Scene
    arguments: Mapping[str, Any]
    told: str


def script(
    id: str, subject: Subject | PluginSubject, call: Call | None = None, *, seed: int = 0, folder: str = ""
) -> str:
    """Source text that runs the check ``id`` again, so that what is reported is raised.

    Before that it makes the call on which the law was found not to be kept, where there is one that can be written
    down: something to begin with. A law that compares several calls shows only in the check.

    Parameters
    ----------
    id
        The check's.
    subject
        What it is of.
    call
        On what the law was found not to be kept.
    seed
        What everything random is started from.
    folder
        Where the plugin is written, if it is not installed.
    """
    text = _Text()
    if folder:
        text.add(f"nearfar.testing.find_plugin({folder!r})")
    if isinstance(subject, Subject) and subject.entry.namespace == LOCAL:
        _register(text, subject)
    if call is not None:
        with contextlib.suppress(Exception):  # of a part so broken that it cannot be written down: the check is enough
            _plain_call(text, call)
    seeded = f", seed={seed}" if seed else ""
    text.add(f"nearfar.testing.find_check({id!r}{seeded}).hold()")
    return str(text)


class _Text:
    """Lines of a script, and what has to be imported for them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, *lines: str) -> None:
        self.lines += lines

    def __str__(self) -> str:
        names = {"nearfar.testing"}.union(*(_modules(line, self._assigned) for line in self.lines))
        # What lies in the folder can be imported once that has been found.
        first = [line for line in self.lines[:1] if line.startswith("nearfar.testing.find_plugin(")]
        now = {name for name in names if not first or name.partition(".")[0] in ("nearfar", "torch")}
        imports, later = ([f"import {name}" for name in sorted(each)] for each in (now, names - now))
        return "\n".join([*imports, "", *first, *later, *self.lines[len(first) :]])

    @property
    def _assigned(self) -> set[str]:
        """The names of the script's own."""
        assigned = (re.match(r"\s*(\w[\w, ]*) = ", line) for line in self.lines)
        return {name for found in assigned if found for name in re.findall(r"\w+", found[1])}


def _modules(line: str, assigned: Collection[str]) -> set[str]:
    """The modules of what a line names by its full path; strings and comments name nothing."""
    if line.startswith("#"):
        return set()
    found = set()
    for name in re.findall(r"(?<![\w.])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.sub(r"'[^']*'|\"[^\"]*\"", "", line)):
        module = name.rpartition(".")[0]
        while module and module not in sys.modules:
            module = module.rpartition(".")[0]
        if module and module.partition(".")[0] not in assigned:
            found.add(module)
    return found


# ---- a part of this process alone


def _register(text: _Text, subject: Subject) -> None:
    """Register the part again as it is, or say that nobody else can."""
    try:
        target, spec = importable(subject.entry.target), literal(subject.spec)
    except Unwritable:
        text.add(f"# {subject.name} is registered in its session alone: run this there.")
    else:
        text.add(f"nearfar.registry.default_registry().register({spec}, {target})")


# ---- the call


def _plain_call(text: _Text, call: Call) -> None:
    """Write the call down; not where nothing makes its inputs again, or it fails with what nobody was told."""
    subject, scene = call.subject, call.scene
    raised, has_gradient = _outcome(call)
    if raised is not None and _first_line(raised) not in " ".join(call.told.split()):
        return
    names, made = list(scene.inputs), _made_again(scene.origin)
    known = dict(zip(names, made, strict=False)) if len(made) <= len(names) else {}
    seeded = f"with nearfar.testing.seeded({subject.seed}):"
    lines = [seeded, f"    part = {_part(call)}", *_inputs(scene, known)]
    learnable = scene.learnable() if has_gradient else {}
    lines += [f"{name}.requires_grad_()" for name in learnable]
    then = [seeded, f"    value = part({_arguments(subject, scene)})"]
    if raised is not None and call.told not in (str(raised), f"{type(raised).__name__}: {raised}", told(raised)):
        lines += [f"# This raises {type(raised).__name__}: {_first_line(raised)}", *(f"# {line}" for line in then)]
    elif learnable:
        grads = ", ".join(f"{name}.grad" for name in learnable)
        lines += [*then, "print(value)", "value.sum().backward()", f"print({grads})"]
    else:
        lines += [*then, "print(value)"]
    text.add("# A call like those it was found with:", *lines, "", "# The check, which raises what was found:")


def _first_line(error: Exception) -> str:
    return " ".join(next(iter(str(error).strip().splitlines()), "").split())


def _outcome(call: Call) -> tuple[Exception | None, bool]:
    """What the call raises, and whether what it returns has a gradient."""
    subject = call.subject
    scene = call.scene.with_gradients() if subject.kind == "loss" else call.scene
    try:
        value = subject.call(subject.make(_dtype(scene), **call.arguments), scene)
        if subject.kind == "loss" and value.requires_grad:
            value.sum().backward()
            return None, True
    except Exception as error:
        return error, subject.kind == "loss"
    return None, False


def _dtype(scene: Scene) -> torch.dtype:
    """The dtype of the part's parameters: that of the inputs, and float32 for the lesser ones."""
    floating = [v.dtype for v in scene.inputs.values() if isinstance(v, Tensor) and v.is_floating_point()]
    return torch.float64 if torch.float64 in floating or not floating else torch.float32


def _part(call: Call) -> str:
    written = {name: value for name, value in call.arguments.items() if not isinstance(value, nn.Module)}
    live = "".join(f", {name}={literal(v)}" for name, v in call.arguments.items() if isinstance(v, nn.Module))
    name, cast = str(call.subject.part(**written)), "double" if _dtype(call.scene) is torch.float64 else "float"
    return f"nearfar.create_{call.subject.kind}({name!r}{live}).{cast}()"


def _arguments(subject: Subject, scene: Scene) -> str:
    """The arguments of the call, as :meth:`Subject.call` gives them."""
    names = list(scene.inputs)
    if subject.kind == "loss" and subject.loss.on_embeddings:
        return ", ".join(name if name in ("embeddings", "labels") else f"{name}={name}" for name in names)
    if subject.kind == "miner" and not subject.is_on_embeddings:
        return ", ".join(n if n in subject.miner.inputs else f"{n}={n}" for n in names)
    if subject.kind == "miner":
        order = [n for n in ("embeddings", "labels", "ref_emb", "ref_labels") if n in scene]
        return ", ".join(order)
    return ", ".join(subject.loss.inputs if subject.kind == "loss" else names)


def _inputs(scene: Scene, known: Mapping[str, Any]) -> Iterator[str]:
    """Lines that make the inputs: by what made them where that gives the same again, written out where not."""
    if known:
        yield f"{', '.join(known)}{',' if len(known) == 1 else ''} = {_without_remark(scene.origin)}"
    for name, value in scene.inputs.items():
        if name in known and same(known[name], value):
            continue
        again = known.get(name)
        if isinstance(again, Tensor) and isinstance(value, Tensor) and same(again.to(value.dtype), value):
            yield f"{name} = {name}.to({value.dtype})"
        else:
            yield f"{name} = {literal(value)}"


def _without_remark(origin: str) -> str:
    return origin.partition("  #")[0]


def _made_again(origin: str) -> Sequence[Any]:
    """What an origin makes; nothing where it cannot be read any more."""
    source = _without_remark(origin)
    try:
        modules = re.findall(r"([A-Za-z_][\w.]*)\.\w+\(", source)
        for module in modules:
            importlib.import_module(module)
        made = eval(source, {name: sys.modules[name] for name in {m.partition(".")[0] for m in modules}})
    except Exception:
        return ()
    return made if isinstance(made, tuple) else ()
