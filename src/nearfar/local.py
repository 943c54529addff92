"""Parts of this session: what a notebook registers for itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nearfar.errors import RegistrationError
from nearfar.registry import check_local_name, default_registry
from nearfar.signature import read_class
from nearfar.spec import EMBEDDING_INPUTS, KINDS

__all__ = ["register", "unregister"]


def register(name: str, target: Any = None, /, *, kind: str | None = None, **spec: Any) -> Any:
    """Register a class under a name, for this process, as a part of the plugin ``local``.

    Registering a name again replaces the part, as running a notebook's cell again should. Without
    ``target`` it is a decorator::

        @nearfar.register("my_loss", accepts=("triplets",))
        class MyLoss(nearfar.EmbeddingLoss): ...

    Parameters
    ----------
    name
        An identifier; the part answers to ``name`` and ``local.name``.
    target
        A class of torch modules, or a function that makes one.
    kind
        ``"loss"``, ``"miner"``, ``"reducer"`` or ``"distance"``; may be left out for subclasses of
        nearfar's.
    **spec
        Further fields of the spec: ``accepts``, ``emits``, ``needs`` … (:mod:`nearfar.spec`). What can be
        read off the constructor need not be said.

    Raises
    ------
    RegistrationError
        The name cannot be used, the kind cannot be told, or the target is no class of modules and makes none.
    """
    if target is None:
        return lambda cls: register(name, cls, kind=kind, **spec) or cls
    check_local_name(name)
    if wrong := _no_maker(target):
        raise RegistrationError(f"{name!r} must be registered with a class of torch modules{wrong}")
    found = kind or _kind_of(target)
    if found not in KINDS:
        raise RegistrationError(f"what kind of part is {name!r}? say kind=, one of {', '.join(KINDS)}")
    try:
        made = KINDS[found](name=name, **(_inferred(found, target) | spec))
    except TypeError as error:
        raise RegistrationError(f"the spec of the {found} {name!r} cannot be made: {error}") from error
    default_registry().register(made, target)
    return target


def unregister(name: str, *, kind: str = "loss") -> None:
    """Take back what :func:`register` added.

    Raises
    ------
    UnknownPart
        This session registered no such part.
    """
    default_registry().unregister(kind, name)


#: What a part is called with, and no constructor has.
_INPUTS = {*EMBEDDING_INPUTS, "query", "reference", "losses", "terms", "logits", "targets", "inputs", "x", "y"}


def _no_maker(target: Any) -> str:
    """What is wrong with a target that makes no module when it is called; empty where that cannot be told."""
    if isinstance(target, type):
        # A torch module, told by its ways: torch is not imported here.
        return "" if hasattr(target, "state_dict") else f", and {target.__name__} is none"
    if hasattr(target, "state_dict") or not callable(target):
        return f", not with {_shortened(target)}"
    if not inspect.isfunction(target):
        return ""
    if target.__name__ == "<lambda>":
        return ", or with a function that has a name, not with a lambda"
    needed = [parameter for parameter in read_class(target).parameters if parameter.required]
    if inputs := [p.name for p in needed if p.name in _INPUTS or "Tensor" in p.annotation]:
        return (
            f", or with a function that makes one; {target.__name__} is itself called with {', '.join(inputs)}: write "
            "it as the forward of a class"
        )
    return ""


def _shortened(target: Any) -> str:
    return f"an object of {type(target).__name__}" if hasattr(target, "state_dict") else repr(target)


def _kind_of(target: Callable[..., Any]) -> str:
    """The kind of a subclass of nearfar's base classes, by their names so that torch need not be here."""
    bases = {
        base.__name__.lower() for base in getattr(target, "__mro__", ()) if base.__module__.startswith("nearfar.nn")
    }
    return next((kind for kind in KINDS if kind in bases), "")


def _inferred(kind: str, target: Any) -> dict[str, Any]:
    signature = read_class(target)
    module = getattr(target, "__module__", "__main__")
    label = getattr(target, "__name__", type(target).__name__)
    first_line = signature.docstring.strip().partition("\n")[0]
    inferred: dict[str, Any] = {
        "target": f"{module}:{label}" if module.replace(".", "_").isidentifier() else f"__main__:{label}",
        "summary": first_line or f"{label}, registered in this session.",
    }
    if kind in ("loss", "miner"):
        inferred["needs"] = tuple(n for n in ("num_classes", "embedding_size") if n in signature)
        inferred["distances"] = ("*",) if "distance" in signature else ()
    if kind == "miner":
        inferred["produces"] = "triplets"
    if kind == "distance":
        inferred["similarity"] = bool(getattr(target, "is_inverted", False))
    return inferred
