"""What a part keeps from one call to the next: every tensor that can be reached from it, and which it reads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Reads", "kept", "registered"]


def registered(part: nn.Module) -> set[int]:
    """The identities of the tensors that ``to`` and ``state_dict`` know of."""
    return {id(tensor) for tensor in (*part.parameters(), *part.buffers())}


def kept(part: nn.Module) -> dict[str, Tensor]:
    """Path → tensor, of every tensor in the attributes of a module, however deep in lists, mappings and objects."""
    return dict(_walk(part, "", set()))


def _walk(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield path, value
        return
    for name, item in _inside(value):
        yield from _walk(item, f"{path}{name}".removeprefix("."), seen)


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, and how it is written after the object's own path."""
    if isinstance(value, nn.Module):
        for name, item in vars(value).items():
            if name in ("_parameters", "_buffers", "_modules"):
                yield from ((f".{inner}", each) for inner, each in item.items())
            else:
                yield f".{name}", item
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{position}]", item) for position, item in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from (("()", item) for item in (*value.args, *value.keywords.values()))
    elif not isinstance(value, type) and not type(value).__module__.startswith(("torch", "builtins")):
        slots = (name for base in type(value).__mro__ for name in getattr(base, "__slots__", ()))
        for name in (*getattr(value, "__dict__", {}), *slots):
            yield f".{name}", getattr(value, name, None)


#: What may be asked of a tensor without a look at its values.
_ABOUT = frozenset({"__get__", "__len__", "dim", "size", "numel"})


class Reads(TorchFunctionMode):
    """Notes which of some tensors are read while it is entered: ``names`` are those of the ones that were."""

    def __init__(self, watched: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._held = list(watched.values())  # of a tensor that is gone another may take the identity
        self._watched = {id(tensor): name for name, tensor in watched.items()}
        self.names: set[str] = set()

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") not in _ABOUT or isinstance(found, Tensor):
            leaves, _ = torch.utils._pytree.tree_flatten((args, kwargs))
            self.names |= {self._watched[id(leaf)] for leaf in leaves if id(leaf) in self._watched}
        return found
