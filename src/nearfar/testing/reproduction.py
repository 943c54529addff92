"""A script that shows a failure again: the part, the inputs, the call."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject

__all__ = ["script"]

#: Numbers that are written out; inputs with more of them, which nothing makes again, are not.
MOST_NUMBERS = 600


class _Unwritable(Exception):
    """An input has no source text that would make it again."""


#: What every script imports.
_OWN = {"nearfar", "nearfar.testing", "torch"}


def script(subject: Subject, scene: Scene, arguments: Mapping[str, Any], folder: str = "") -> str:
    """Source text that makes the part and the inputs again and calls it; empty where no text does.

    Parameters
    ----------
    subject, scene
        The part, and what it was called with.
    arguments
        What it was made with beyond its example.
    folder
        Where the plugin is written, if it is not installed.
    """
    names, made = list(scene.inputs), _made_again(scene.origin)
    known = dict(zip(names, made, strict=False)) if len(made) <= len(names) else {}
    try:
        inputs = list(_inputs(scene, known))
    except _Unwritable:
        return ""
    modules = {*_OWN, *(_modules(scene.origin) if known else ())}
    seeded = f"with nearfar.testing.seeded({subject.seed}):"
    lines = [
        *(f"import {module}" for module in sorted(modules & _OWN)),
        "",
        *([f"nearfar.testing.find_plugin({folder!r})"] if folder else []),
        # After the folder, which they may lie in, has been found.
        *(f"import {module}" for module in sorted(modules - _OWN)),
        seeded,
        f"    part = {_part(subject, scene, arguments)}",
        *inputs,
    ]
    learnable = scene.learnable() if subject.kind == "loss" else {}
    lines += [f"{name}.requires_grad_()" for name in learnable]
    lines += [seeded, f"    value = part({_call(subject, scene)})", "print(value)"]
    if learnable:
        lines += ["value.sum().backward()", f"print({', '.join(f'{name}.grad' for name in learnable)})"]
    return "\n".join(lines)


def _part(subject: Subject, scene: Scene, arguments: Mapping[str, Any]) -> str:
    floating = [v.dtype for v in scene.inputs.values() if isinstance(v, Tensor) and v.is_floating_point()]
    cast = "double" if torch.float64 in floating or not floating else "float"
    written = {name: value for name, value in arguments.items() if not isinstance(value, nn.Module)}
    made = f"nearfar.create_{subject.kind}({str(subject.part(**written))!r}).{cast}()"
    live = ", ".join(f"{n}={type(v).__name__}(…)" for n, v in arguments.items() if n not in written)
    return f"{made}  # and with {live}" if live else made


def _call(subject: Subject, scene: Scene) -> str:
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
        if name in known and _same(known[name], value):
            continue
        again = known.get(name)
        if isinstance(again, Tensor) and isinstance(value, Tensor) and _same(again.to(value.dtype), value):
            yield f"{name} = {name}.to({value.dtype})"
        else:
            yield f"{name} = {_literal(value)}"


def _without_remark(origin: str) -> str:
    return origin.partition("  #")[0]


def _modules(origin: str) -> list[str]:
    """The modules of the functions that are called."""
    return re.findall(r"([A-Za-z_][\w.]*)\.\w+\(", _without_remark(origin))


def _made_again(origin: str) -> tuple[Any, ...]:
    """What an origin makes; nothing where it cannot be read any more."""
    source = _without_remark(origin)
    try:
        for module in _modules(source):
            importlib.import_module(module)
        made = eval(source, {name: sys.modules[name] for name in {m.partition(".")[0] for m in _modules(source)}})
    except Exception:
        return ()
    return made if isinstance(made, tuple) else ()


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.dtype != second.dtype or first.shape != second.shape:
            return False
        return bool(((first == second) | ((first != first) & (second != second))).all())
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and not isinstance(first, Tensor) and bool(first == second)


def _literal(value: Any) -> str:
    """A value as source text."""
    if isinstance(value, Tensor):
        return _tensor(value.detach())
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        items = ", ".join(map(_literal, value))
        return f"[{items}]" if isinstance(value, list) else f"({items},)" if len(value) == 1 else f"({items})"
    if value is None or isinstance(value, bool | int | float | str):
        return _number(value) if isinstance(value, float) else repr(value)
    raise _Unwritable


def _tensor(value: Tensor) -> str:
    if value.device.type != "cpu" or value.layout != torch.strided:
        raise _Unwritable
    if not value.numel():
        return f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"
    first = value.flatten()[0]
    if value.numel() > 1 and _same(value, first.expand(value.shape)):
        return f"torch.full({tuple(value.shape)}, {_number(first.item())}, dtype={value.dtype})"
    if value.numel() > MOST_NUMBERS:
        raise _Unwritable
    if value.ndim != 2:
        return f"torch.tensor({_nested(value.tolist())}, dtype={value.dtype})"
    rows = "".join(f"    {_nested(row)},\n" for row in value.tolist())
    return f"torch.tensor([\n{rows}], dtype={value.dtype})"


def _nested(values: Any) -> str:
    return f"[{', '.join(map(_nested, values))}]" if isinstance(values, list) else _number(values)


def _number(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "torch.nan" if math.isnan(value) else f"{'-' if value < 0 else ''}torch.inf"
    return repr(value)
