"""Classes as they stand in source files, found and parsed without importing anything."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import griffe

__all__ = ["declares", "find_class", "text_of"]


def find_class(module: str, name: str) -> griffe.Class | None:
    """The class, followed through the imports of facades; None where there is no source for it."""
    import griffe

    for _ in range(8):  # facades that import from facades
        parsed = _parse(module)
        if parsed is None:
            return None
        member = parsed.members.get(name)
        if isinstance(member, griffe.Class):
            return member
        path = parsed.imports.get(name)
        if path is None or path == f"{module}.{name}":
            return None
        module, _, name = path.rpartition(".")
    return None


def declares(module: str, name: str) -> bool | None:
    """Whether a module has something of this name; None where its source cannot tell."""
    for _ in range(8):  # facades that import from facades
        if not _exists(module):
            return False
        parsed = _parse(module)
        if parsed is None:
            return None
        member = parsed.members.get(name)
        if member is not None and not member.is_alias:
            return True
        path = parsed.imports.get(name)
        if path is None:  # unless it comes by a star, or is made when it is asked for
            return None if "__getattr__" in parsed.members or any(m.endswith("*") for m in parsed.members) else False
        if _exists(path):
            return True
        module, _, name = path.rpartition(".")
    return None


@functools.cache
def _parse(module: str) -> griffe.Module | None:
    import griffe

    path = _module_file(module)
    if path is None:
        return None
    # Empty packages above it, so that its relative imports resolve.
    parent: griffe.Module | None = None
    *packages, last = module.split(".")
    for depth, package in enumerate(packages, start=1):
        above = _module_file(".".join(packages[:depth]))
        node = griffe.Module(package, filepath=above, parent=parent)
        if parent is not None:
            parent.set_member(package, node)
        parent = node
    try:
        parsed = griffe.visit(last, filepath=path, code=path.read_text(encoding="utf-8"), parent=parent)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    if parent is not None:
        parent.set_member(last, parsed)
    return parsed


def _module_file(module: str) -> Path | None:
    """Where the source of a module is; nothing is imported, its packages neither."""
    spec = _find(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _exists(module: str) -> bool:
    return _find(module) is not None


def _find(module: str) -> importlib.machinery.ModuleSpec | None:
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for name in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def text_of(cls: griffe.Class) -> str:
    """The source of a class; empty where it is not known."""
    if not isinstance(cls.filepath, Path) or cls.lineno is None:
        return ""
    return "\n".join(cls.filepath.read_text(encoding="utf-8").splitlines()[cls.lineno - 1 : cls.endlineno])
