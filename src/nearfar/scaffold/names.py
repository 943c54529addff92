"""What a plugin and its parts may be called, and what follows from a name."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Collection
from importlib import metadata

from nearfar.discovery import GROUP, RESERVED, canonical
from nearfar.errors import RegistrationError
from nearfar.registry import QUALIFIED_ONLY, default_registry
from nearfar.spec import is_identifier

__all__ = [
    "check_distribution",
    "check_namespace",
    "check_part",
    "class_name",
    "owner_of",
    "package_of",
    "split_family",
    "suggest_namespace",
]

#: PEP 508's.
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_PART = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

#: Words that say of a distribution what every plugin is.
_COMMON = frozenset({"nearfar", "plugin", "plugins", "loss", "losses", "metric", "learning", "torch"})


def package_of(distribution: str) -> str:
    """The package that a distribution is imported as: ``acme_losses`` of ``Acme-Losses``."""
    return canonical(distribution).replace("-", "_")


def suggest_namespace(distribution: str) -> str:
    """A namespace for a distribution: its name without the words that many have."""
    words = package_of(distribution).split("_")
    return "_".join(word for word in words if word not in _COMMON) or "_".join(words)


def class_name(part: str) -> str:
    """The class of a part: ``MyLoss`` of ``my_loss``."""
    return "".join(word[:1].upper() + word[1:] for word in part.split("_"))


def check_distribution(name: str) -> str:
    """Return ``name``, or raise :class:`RegistrationError` where no new distribution can have it."""
    if not _DISTRIBUTION.fullmatch(name):
        raise RegistrationError(
            f"{name!r} cannot name a distribution: it takes letters, digits, '-', '_' and '.', "
            "and begins and ends with a letter or a digit"
        )
    if canonical(name) in RESERVED.values():
        raise RegistrationError(f"{name!r} is the name of a distribution of nearfar's own; choose another")
    package = package_of(name)
    if not is_identifier(package):
        why = "a keyword" if keyword.iskeyword(package) else "no identifier"
        raise RegistrationError(f"{name!r} would be imported as {package!r}, which is {why}; choose another name")
    if package in sys.stdlib_module_names:
        raise RegistrationError(
            f"{name!r} would be imported as {package!r} and hide the standard library's module; choose another name"
        )
    version = _installed(name)
    if version is not None:
        raise RegistrationError(f"{name!r} is installed already, as version {version}; choose another name")
    if _is_importable(package):
        raise RegistrationError(
            f"{name!r} would be imported as {package!r}, and another package is; choose another name"
        )
    return name


def check_namespace(namespace: str) -> str:
    """Return ``namespace``, or raise :class:`RegistrationError` where no new plugin can have it."""
    if not is_identifier(namespace):
        raise RegistrationError(
            f"the namespace {namespace!r} is no identifier, so no recipe could name its parts; acme is one"
        )
    if namespace in RESERVED:
        raise RegistrationError(f"the namespace {namespace!r} belongs to {RESERVED[namespace]}; choose another")
    for taken in metadata.entry_points(group=GROUP, name=namespace):
        owner = "an installed plugin" if taken.dist is None else f"{taken.dist.name} {taken.dist.version}"
        raise RegistrationError(f"the namespace {namespace!r} is taken by {owner}; choose another")
    return namespace


def check_part(kind: str, name: str) -> str:
    """Return ``name``, or raise :class:`RegistrationError` where no new part can have it."""
    if keyword.iskeyword(name):
        raise RegistrationError(
            f"{name!r} cannot name a {kind}: it is a keyword of Python's, which no recipe can write; "
            f"{name}_{kind} would do"
        )
    if not _PART.fullmatch(name):
        raise RegistrationError(
            f"{name!r} cannot name a {kind}: a part is a lower-case identifier, words parted by single '_'; "
            f"my_{kind} would do"
        )
    return name


def split_family(name: str, families: Collection[str]) -> tuple[str, str]:
    """The name and the family of ``name:family``; ``""`` for the family where only the name is given.

    Raises
    ------
    RegistrationError
        There is no such family.
    """
    bare, colon, family = name.partition(":")
    if colon and family not in families:
        raise RegistrationError(f"{name!r}: there is no family {family!r} of losses; there are {', '.join(families)}")
    return bare, family


def owner_of(kind: str, name: str) -> str:
    """The namespace whose part already answers to a bare name; empty where none does."""
    for entry in default_registry().entries(kind):
        answers = (entry.spec.name, *entry.spec.aliases, *entry.spec.deprecated)
        if name in answers and entry.namespace not in QUALIFIED_ONLY:
            return entry.namespace
    return ""


def _installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _is_importable(package: str) -> bool:
    """Whether a package of the name is on the path; a mere folder of the name, which Python takes for one, is not."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None
