"""A check: one law, held against one part."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import shlex
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import nearfar.testing.laws  # noqa: F401  # writes the laws down
from nearfar.discovery import canonical
from nearfar.errors import UnknownPart
from nearfar.project import not_installed
from nearfar.registry import LOCAL, Registry
from nearfar.spec import KINDS
from nearfar.testing.law import LAWS, Law, LawBroken, NotApplicable
from nearfar.testing.raised import formatted, raised_by, where
from nearfar.testing.reproduction import Call, script
from nearfar.testing.subject import PluginSubject, Subject, seeded
from nearfar.testing.surroundings import defaults
from nearfar.testing.variants import variants
from nearfar.told import told

__all__ = ["Check", "Result", "Status", "checks_by", "checks_of", "subjects_of"]

Status = Literal["passed", "failed", "skipped", "expected"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check.

    ``status`` is ``passed``; ``failed``; ``skipped`` where the law says nothing of the part; or ``expected``
    where it fails as the spec says. ``reason`` says why for all but the first, for which it may say what was
    measured.
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
    """One law and one part; called, it passes, skips or fails the pytest test that calls it.

    ``folder`` is where the plugin is written, if it is not installed; with ``traceback`` a failure is told with all of
    the traceback of what the part raised.
    """

    subject: Subject | PluginSubject
    law: Law
    case: str = ""
    folder: str = ""
    traceback: bool = False

    @property
    def key(self) -> str:
        """``law`` or ``law[case]``: how ``expected_failures`` names it."""
        return f"{self.law.name}[{self.case}]" if self.case else self.law.name

    @property
    def id(self) -> str:
        return f"{self.subject.name}::{self.key}"

    def run(self) -> Result:
        """Hold the law against the part; what the part prints is kept off the terminal."""
        start, printed = time.perf_counter(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status, reason = self._judge(*self._outcome(printed))
        seconds = time.perf_counter() - start
        return Result(self.id, self.subject.name, self.law.name, self.case, status, reason, seconds)

    def hold(self) -> str:
        """Hold the law against the part, whatever the spec expects of it; what was measured.

        Raises
        ------
        LawBroken
            The part does not keep the law; where that is because it raises, it may be the part's own exception.
        NotApplicable
            The law says nothing about the part.
        """
        subject = self.subject
        with defaults():
            self._try()
            with seeded(getattr(subject, "seed", 0)), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                measured = self.law.check(subject, self.case) if self.case else self.law.check(subject)
        return measured or ""

    def _try(self) -> None:
        """Raise :class:`NotApplicable` where the part cannot be imported or called, which is another law's affair."""
        if (trouble := self.subject.trouble) and trouble.hides(self.law):
            raise NotApplicable(f"see the law `{trouble.law}`: {trouble.said}")

    def _outcome(self, printed: io.StringIO) -> tuple[Status, str]:
        try:
            with defaults():
                self._try()
            printed.truncate(printed.seek(0))  # what it printed when it was tried out is not what this law is about
            measured = self.hold()
        except NotApplicable as error:
            return "skipped", str(error)
        except LawBroken as error:
            return "failed", f"{error}{self._trace(error)}{self._explanation(error, str(error), printed)}"
        except (Exception, SystemExit) as error:
            said = told(error)
            at = formatted(error) if self.traceback else f"\n{where(error)}"
            return "failed", f"{said}{at}{self._explanation(error, said, printed)}"
        return "passed", measured

    def _judge(self, status: Status, reason: str) -> tuple[Status, str]:
        """The outcome in the light of what the spec expects."""
        expected = self.subject.expected_failures.get(self.key)
        if expected is None or status == "skipped":
            return status, reason
        if status == "failed":
            return "expected", expected
        return "failed", (
            f"the law is kept, but the spec expects that it is not ({expected}); take {self.key!r} out of "
            "expected_failures"
        )

    def _explanation(self, error: BaseException, told: str, printed: io.StringIO) -> str:
        """The law in a sentence, what the part printed, and how to see the failure again.

        The script is flush left and everything around it a comment, so that it can be copied with its surroundings.
        """
        lines = ["", "", f"The law: {self.law.says}"]
        if said := printed.getvalue().strip():
            lines += ["It printed:", *(f"    {line}" for line in said.splitlines()[-5:])]
        call = None
        scene = getattr(error, "scene", None)
        if scene is not None and isinstance(self.subject, Subject):
            call = Call(self.subject, scene, self._arguments(error), told)
        written = script(self.id, self.subject, call, seed=self._seed, folder=self.folder)
        return "\n".join([*lines, "", f"# To reproduce {self.id}", written, *self._command()])

    def _trace(self, error: LawBroken) -> str:
        """The traceback of what the part raised, where that is why it does not keep the law, and it is asked for."""
        if not self.traceback:
            return ""
        raised = error.__cause__ or error.__context__
        if raised is None and isinstance(self.subject, Subject):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                raised = raised_by(self.subject)
            if raised is None or " ".join(str(raised).split()) not in " ".join(str(error).split()):
                return ""
        return "" if raised is None else formatted(raised)

    def _arguments(self, error: BaseException) -> Mapping[str, Any]:
        """What the part was made with when it did not keep the law."""
        if isinstance(error, LawBroken):
            return error.arguments
        with contextlib.suppress(Exception):  # a part so broken that its variants cannot be told has none
            assert isinstance(self.subject, Subject)
            return variants(self.subject).get(self.case, {})
        return {}

    @property
    def _seed(self) -> int:
        return getattr(self.subject, "seed", 0)

    def _command(self) -> list[str]:
        """The command that checks this again, as a comment; none for a part of this process alone."""
        plugin = self.folder or self.subject.name.partition(".")[0]
        if plugin == LOCAL:
            return []
        seed = ["--seed", str(self._seed)] if self._seed else []
        return [f"# {shlex.join(['nearfar', 'check-plugin', plugin, '-k', self.id, *seed])}"]

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


def checks_of(registry: Registry, namespace: str, *, seed: int = 0, folder: str = "") -> list[Check]:
    """Every check of a plugin and its parts: a law of the kind each, case by case.

    Parameters
    ----------
    registry
        Where the plugin is.
    namespace
        The plugin's.
    seed
        What everything random is started from.
    folder
        Where the plugin is written, if it is not installed: what a failure is reproduced with.

    Raises
    ------
    UnknownPart
        No plugin has the namespace, or it is not active; the message says why.
    """
    subjects = subjects_of(registry, namespace, seed=seed)
    # To tell the cases parts are made, and what is made may print.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return [dataclasses.replace(check, folder=folder) for check in checks_by(LAWS.values(), subjects)]


def subjects_of(registry: Registry, namespace: str, *, seed: int = 0) -> list[Subject | PluginSubject]:
    """A plugin as a whole, then its parts; raises as :func:`checks_of` does."""
    found = [p for p in registry.plugins if p.namespace == namespace]
    if not found:
        raise UnknownPart(_unknown(registry, namespace), name=namespace)
    plugin = next((p for p in found if p.status == "active"), found[0])
    if plugin.status != "active":
        raise UnknownPart(f"the plugin {namespace!r} is {plugin.status}: {plugin.reason}", name=namespace)
    parts = [Subject(e, registry, seed) for kind in KINDS for e in registry.find(kind, plugin=namespace)]
    return [PluginSubject(plugin, registry), *parts]


def _unknown(registry: Registry, namespace: str) -> str:
    """What to say of a namespace that nobody has."""
    for plugin in registry.plugins:
        if canonical(plugin.distribution) == canonical(namespace):
            return f"{namespace!r} is the distribution; its namespace is {plugin.namespace!r}"
    known = sorted({p.namespace for p in registry.plugins})
    close = difflib.get_close_matches(namespace, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}; or give the folder of a plugin"
    hint = not_installed(namespace, takes_folder=True) or hint
    return f"no plugin has the namespace {namespace!r}; {hint}"


def checks_by(laws: Collection[Law], subjects: Iterable[Any]) -> Iterator[Check]:
    """The checks of subjects by some laws, case by case."""
    for subject in subjects:
        for law in laws:
            if not law.is_about(subject):
                continue
            try:
                cases = list(law.cases(subject)) if law.cases else [""]
            except (Exception, SystemExit) as error:  # of a part so broken that not even its cases can be told
                yield Check(subject, _raising(law, error))
            else:
                yield from (Check(subject, law, case) for case in cases)


def _raising(law: Law, error: BaseException) -> Law:
    """The law with a check that says what went wrong before it."""

    def check(subject: Subject) -> None:
        raise error

    return dataclasses.replace(law, cases=None, check=check)
