"""What a plugin gives besides parts: recipes that are worth knowing by name, and commands.

As specs of parts are, they are frozen data that import nothing: a command is imported when it is called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from nearfar.errors import RegistrationError
from nearfar.spec import Paper, is_identifier

__all__ = ["COMMAND_GROUPS", "CommandSpec", "RecipeSpec"]

#: The commands of nearfar's that plugins add commands to.
COMMAND_GROUPS = ("bench", "plot")

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_COMMAND = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeSpec:
    """A recipe that is worth knowing by name, and where it comes from.

    Parameters
    ----------
    name
        An identifier, of no part; ``nearfar show NAME`` shows it.
    recipe
        As it is written for :func:`nearfar.compose`, with the parts' bare names where these are enough.
    summary
        One line: what it is for.
    paper
        Where it was published.
    source
        What of it is whose: the section of the paper, the code that has the weights.
    notes
        What one has to know to use it; one sentence each.
    settings
        Of a training run, where they were published with it: sections of its configuration with their keys, such as
        ``{"optimizer": {"lr": 0.1}}``. ``nearfar train --recipe NAME`` begins with them.
    """

    kind: ClassVar[str] = "recipe"

    name: str
    recipe: str
    summary: str
    paper: Paper | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_identifier(self.name):
            raise RegistrationError(f"recipe {self.name!r}: the name is not an identifier")
        self._freeze_settings()
        for needed in ("recipe", "summary"):
            if not getattr(self, needed):
                raise RegistrationError(f"recipe {self.name!r}: the {needed} is empty")
        if self.paper is None and not self.source:
            raise RegistrationError(f"recipe {self.name!r}: say where it comes from, as paper or source")
        if not isinstance(self.notes, tuple):  # a bare string, most often
            raise RegistrationError(f"recipe {self.name!r}: notes must be a tuple of sentences, not {self.notes!r}")

    def _freeze_settings(self) -> None:
        settings = self.settings
        if not isinstance(settings, Mapping) or not all(isinstance(section, Mapping) for section in settings.values()):
            raise RegistrationError(
                f"recipe {self.name!r}: settings must be sections with their keys, such as "
                f"{{'optimizer': {{'lr': 0.1}}}}, not {settings!r}"
            )
        frozen = {name: MappingProxyType(dict(section)) for name, section in settings.items()}
        object.__setattr__(self, "settings", MappingProxyType(frozen))


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandSpec:
    """A command below one of nearfar's own.

    Parameters
    ----------
    group
        Below which: ``"bench"``, what reruns an experiment, or ``"plot"``, what draws.
    name
        Its name there, lower case.
    target
        The :class:`click.Command`, ``"package.module:name"``; imported when the command is called.
    summary
        One line of help, shown without importing the command.
    """

    group: str
    name: str
    target: str
    summary: str

    def __post_init__(self) -> None:
        if self.group not in COMMAND_GROUPS:
            raise RegistrationError(
                f"command {self.name!r}: there is no group {self.group!r}; there are {', '.join(COMMAND_GROUPS)}"
            )
        if not _COMMAND.fullmatch(self.name):
            raise RegistrationError(f"command {self.name!r}: a name is of lower-case words joined by hyphens")
        if not _TARGET.fullmatch(self.target):
            raise RegistrationError(
                f"command {self.name!r}: the target {self.target!r} is not of the form 'package.module:name'"
            )
        if not self.summary:
            raise RegistrationError(f"command {self.name!r}: the summary is empty; say in one line what it does")

    @property
    def kind(self) -> str:
        """What it is called in messages: a ``bench`` command, a ``plot`` command."""
        return f"{self.group} command"
