"""A check: one law, held against one part."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nearfar.testing.laws  # noqa: F401  # writes the laws down
from nearfar.errors import UnknownPart
from nearfar.registry import Registry
from nearfar.spec import KINDS
from nearfar.testing.law import LAWS, Law, LawBroken, NotApplicable
from nearfar.testing.subject import PluginSubject, Subject, seeded

__all__ = ["Check", "Result", "Status", "checks_of"]

Status = Literal["passed", "failed", "skipped", "expected"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check.

    ``status`` is ``passed``; ``failed``; ``skipped`` where the law says nothing of the part; or ``expected``
    where it fails as the spec says. ``reason`` says why for all but the first.
    """

    id: str
    part: str
    law: str
    case: str
    status: Status
    reason: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Check:
    """One law and one part; called, it passes, skips or fails the pytest test that calls it."""

    subject: Subject | PluginSubject
    law: Law
    case: str = ""

    @property
    def key(self) -> str:
        """``law`` or ``law[case]``: how ``expected_failures`` names it."""
        return f"{self.law.name}[{self.case}]" if self.case else self.law.name

    @property
    def id(self) -> str:
        return f"{self.subject.name}::{self.key}"

    def run(self) -> Result:
        """Hold the law against the part."""
        start = time.perf_counter()
        status, reason = self._judge(*self._outcome())
        seconds = time.perf_counter() - start
        return Result(self.id, self.subject.name, self.law.name, self.case, status, reason, seconds)

    def _outcome(self) -> tuple[Status, str]:
        subject = self.subject
        try:
            if not self.law.standalone and subject.trouble:
                return "skipped", f"a plain call does not run: {subject.trouble}"
            with seeded(getattr(subject, "seed", 0)), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.law.check(subject, self.case) if self.case else self.law.check(subject)
        except NotApplicable as error:
            return "skipped", str(error)
        except LawBroken as error:
            return "failed", f"{error}{self._reproduction(error)}"
        except (Exception, SystemExit) as error:
            return "failed", f"{type(error).__name__}: {error}\n{_where(error)}{self._reproduction(error)}"
        return "passed", ""

    def _judge(self, status: Status, reason: str) -> tuple[Status, str]:
        """The outcome in the light of what the spec expects."""
        expected = self.subject.expected_failures.get(self.key)
        if expected is None or status == "skipped":
            return status, reason
        if status == "failed":
            return "expected", expected
        return "failed", (
            f"the law is kept, but the spec expects that it is not ({expected}); take it out of expected_failures"
        )

    def _reproduction(self, error: BaseException) -> str:
        """How to see it again: a script where the inputs are known, and the command."""
        lines = ["", "", f"    The law: {self.law.says}", "", "    Reproduce:"]
        scene = getattr(error, "scene", None)
        if scene is not None and scene.origin and isinstance(self.subject, Subject):
            lines += [
                "        import nearfar, nearfar.testing",
                f"        part = {self.subject.source(getattr(error, 'arguments', {}))}.double()",
                f"        inputs = {scene.origin}",
                "        part(*inputs)",
            ]
        namespace = self.subject.name.partition(".")[0]
        seed = getattr(self.subject, "seed", 0)
        seeding = f" --seed {seed}" if seed else ""
        lines.append(f"        nearfar check-plugin {namespace} -k '{self.id}'{seeding}")
        return "\n".join(lines)

    def __call__(self) -> None:
        import pytest

        __tracebackhide__ = True
        result = self.run()
        if result.status == "skipped":
            pytest.skip(result.reason)
        if result.status == "expected":
            pytest.xfail(result.reason)
        if result.status == "failed":
            pytest.fail(f"{result.id}\n{result.reason}", pytrace=False)


def checks_of(registry: Registry, namespace: str, *, seed: int = 0) -> list[Check]:
    """Every check of a plugin and its parts: a law of the kind each, case by case.

    Raises
    ------
    UnknownPart
        No plugin has the namespace, or it is not active; the message says why.
    """
    plugin = next((p for p in registry.plugins if p.namespace == namespace), None)
    if plugin is None:
        known = ", ".join(sorted(p.namespace for p in registry.plugins))
        raise UnknownPart(f"no plugin has the namespace {namespace!r}; there are {known}", name=namespace)
    if plugin.status != "active":
        raise UnknownPart(f"the plugin {namespace!r} is {plugin.status}: {plugin.reason}", name=namespace)
    subjects: list[Any] = [PluginSubject(plugin, registry)]
    subjects += [Subject(e, registry, seed) for kind in KINDS for e in registry.find(kind, plugin=namespace)]
    return list(_checks(subjects))


def _checks(subjects: Iterable[Any]) -> Iterator[Check]:
    for subject in subjects:
        for law in LAWS.values():
            if subject.kind in law.kinds:
                yield from (Check(subject, law, case) for case in (law.cases(subject) if law.cases else ("",)))


def _where(error: BaseException) -> str:
    """The innermost lines of a traceback."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return "\n".join(f"      at {Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames)
