"""What ``nearfar check-plugin --json`` found, read back: which part keeps which law.

A law may have cases, each checked by itself; here it counts once, by the worst that came of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nearfar.errors import ConfigError

__all__ = ["STATUSES", "Check", "Report", "Tally", "load", "read"]

#: What can come of a check, worst first.
STATUSES = ("failed", "expected", "passed", "skipped")


@dataclass(frozen=True, slots=True)
class Check:
    """What came of one law, or one case of it, held against one part."""

    part: str
    law: str
    case: str
    status: str
    reason: str

    @property
    def name(self) -> str:
        """``law`` or ``law[case]``."""
        return f"{self.law}[{self.case}]" if self.case else self.law


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of all checks of one part."""

    checks: tuple[Check, ...]

    def marks(self) -> dict[str, str]:
        """Law → the worst that came of it."""
        found: dict[str, str] = {}
        for check in self.checks:
            found[check.law] = min(found.get(check.law, "skipped"), check.status, key=STATUSES.index)
        return found

    def count(self, status: str) -> int:
        """How many laws came out so."""
        return sum(mark == status for mark in self.marks().values())

    def reasons(self, status: str) -> dict[str, list[str]]:
        """Reason → the names of the checks that came out so because of it; laws that came out worse are left out."""
        marks = self.marks()
        found: dict[str, list[str]] = {}
        for check in self.checks:
            if check.status == status == marks[check.law]:
                found.setdefault(check.reason.partition("\n")[0], []).append(check.name)
        return found

    def __str__(self) -> str:
        said = [_laws(self.count("passed"), "holds", "hold")]
        if n := self.count("failed"):
            said.append(f"{n} {'fails' if n == 1 else 'fail'}")
        if n := self.count("skipped"):
            said.append(f"{n} {'does' if n == 1 else 'do'} not apply")
        if n := self.count("expected"):
            said.append(f"{n} expected {'failure' if n == 1 else 'failures'}")
        return ", ".join(said)


def _laws(number: int, one: str, many: str) -> str:
    return f"{number} law {one}" if number == 1 else f"{number} laws {many}"


@dataclass(frozen=True, slots=True)
class Report:
    """The report of one plugin.

    Attributes
    ----------
    plugin, version
        Its namespace, and the version of its distribution that was checked.
    nearfar
        The version of nearfar whose laws these are.
    checks
        All of them, in the order in which they were run.
    laws
        Law → what it says, where the report tells.
    """

    plugin: str
    version: str
    nearfar: str
    checks: tuple[Check, ...]
    laws: Mapping[str, str]

    @property
    def parts(self) -> list[str]:
        """The names of all that was checked, the plugin's own among them."""
        return list(dict.fromkeys(check.part for check in self.checks))

    def of(self, full_name: str, kind: str = "") -> Tally:
        """What came of one part; nothing where it was not checked."""
        names = {full_name, f"{full_name}.{kind}"}  # with its kind where another kind has the same name
        return Tally(tuple(check for check in self.checks if check.part in names))


def read(data: Any, *, source: str = "the report") -> Report:
    """A report from what its JSON says.

    Raises
    ------
    ConfigError
        It is no such report.
    """
    try:
        checks = tuple(
            Check(str(row["part"]), str(row["law"]), str(row.get("case") or ""), row["status"], str(row["reason"]))
            for row in data["checks"]
        )
        plugin, version, nearfar = str(data["plugin"]), str(data["version"]), str(data["nearfar"])
        laws = {str(name): str(said) for name, said in data.get("laws", {}).items()}
    except (KeyError, TypeError, AttributeError) as error:
        missing = f": it has no {error}" if isinstance(error, KeyError) else ""
        raise ConfigError(f"{source} is not what `nearfar check-plugin --json` writes{missing}") from None
    if odd := next((check for check in checks if check.status not in STATUSES), None):
        raise ConfigError(f"{source}: {odd.part}::{odd.name} has the status {odd.status!r}, not one of {STATUSES}")
    return Report(plugin, version, nearfar, checks, MappingProxyType(laws))


def load(path: Path) -> list[Report]:
    """The reports in a file: one, or several under ``"reports"``.

    Raises
    ------
    ConfigError
        The file cannot be read, or is no report.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the report {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the report {path} is not JSON: {error}") from error
    rows: Iterable[Any] = data["reports"] if isinstance(data, dict) and "reports" in data else [data]
    if not isinstance(rows, list):
        raise ConfigError(f"the report {path}: 'reports' is not a list")
    return [read(row, source=f"the report {path}") for row in rows]
