"""Values as source text that makes them again."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Unwritable", "importable", "literal", "same"]

#: Numbers that are written out; inputs with more of them, which nothing makes again, are not.
MOST_NUMBERS = 600


class Unwritable(Exception):
    """A value has no source text that would make it again."""


def literal(value: Any) -> str:
    """A value as source text, for which the modules of whatever classes it names have been imported.

    Raises
    ------
    Unwritable
        There is no such text.
    """
    if isinstance(value, Tensor):
        return _tensor(value.detach())
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        items = ", ".join(map(literal, value))
        return f"[{items}]" if isinstance(value, list) else f"({items},)" if len(value) == 1 else f"({items})"
    if value is None or isinstance(value, bool | int | float | str):
        return _number(value) if isinstance(value, float) else repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if not _is_default(value, f)}
        return f"{importable(type(value))}({', '.join(f'{name}={literal(item)}' for name, item in fields.items())})"
    if isinstance(value, nn.Module):
        return _module(value)
    raise Unwritable


def importable(target: Callable[..., Any]) -> str:
    """``package.module.Class`` of what another process can import.

    Raises
    ------
    Unwritable
        It is of this process alone: written in a function, in a notebook, in the script that runs.
    """
    module, name = getattr(target, "__module__", None) or "", getattr(target, "__qualname__", "")
    found: Any = sys.modules.get(module)
    for piece in name.split("."):
        found = getattr(found, piece, None)
    if found is not target or module == "__main__":
        raise Unwritable
    return f"{module}.{name}"


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, tensors to the bit and in dtype; not a number equals itself."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.dtype != second.dtype or first.shape != second.shape:
            return False
        return bool(((first == second) | ((first != first) & (second != second))).all())
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, nn.Module) and isinstance(second, nn.Module):
        return type(first) is type(second) and same(vars(first), vars(second))
    return type(first) is type(second) and not isinstance(first, Tensor) and bool(first == second)


def _is_default(value: Any, field: dataclasses.Field[Any]) -> bool:
    make = field.default_factory
    default = field.default if make is dataclasses.MISSING else make()
    return same(getattr(value, field.name), default)


def _module(value: nn.Module) -> str:
    """A module that its class makes of nothing."""
    written = importable(type(value))
    try:
        again = type(value)()
    except Exception as error:
        raise Unwritable from error
    if not same(value, again):
        raise Unwritable
    return f"{written}()"


def _tensor(value: Tensor) -> str:
    if value.device.type != "cpu" or value.layout != torch.strided:
        raise Unwritable
    if not value.numel():
        return f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"
    first = value.flatten()[0]
    if value.numel() > 1 and same(value, first.expand(value.shape)):
        return f"torch.full({tuple(value.shape)}, {_number(first.item())}, dtype={value.dtype})"
    if value.numel() > MOST_NUMBERS:
        raise Unwritable
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
