"""What came of all checks of a plugin, and how it is written down."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any
from xml.etree import ElementTree

import torch

import nearfar
from nearfar.discovery import Plugin
from nearfar.testing.check import Check, Result

__all__ = ["Report", "run"]


@dataclass(frozen=True, slots=True)
class Report:
    """The results of the checks of one plugin."""

    plugin: Plugin
    results: tuple[Result, ...]

    @property
    def counts(self) -> Counter[str]:
        """Status → how many checks have it."""
        return Counter(result.status for result in self.results)

    @property
    def is_good(self) -> bool:
        """Whether something was checked and nothing failed: no check at all is a failure."""
        return self.counts["passed"] > 0 and self.counts["failed"] == 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON-serialisable data."""
        return {
            "plugin": self.plugin.namespace,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "nearfar": nearfar.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            **{status: self.counts[status] for status in ("passed", "failed", "skipped", "expected")},
            "checks": [asdict(result) | {"seconds": round(result.seconds, 3)} for result in self.results],
        }

    def to_junit(self) -> str:
        """As JUnit's XML, which continuous integration reads."""
        suite = ElementTree.Element(
            "testsuite",
            name=f"nearfar check-plugin {self.plugin.namespace}",
            tests=str(len(self.results)),
            failures=str(self.counts["failed"]),
            skipped=str(self.counts["skipped"] + self.counts["expected"]),
            time=f"{sum(result.seconds for result in self.results):.3f}",
        )
        for result in self.results:
            name = result.id.partition("::")[2]
            case = ElementTree.SubElement(suite, "testcase", classname=result.part, name=name)
            case.set("time", f"{result.seconds:.3f}")
            if result.status == "failed":
                failure = ElementTree.SubElement(case, "failure", message=result.reason.partition("\n")[0])
                failure.text = result.reason
            elif result.status != "passed":
                ElementTree.SubElement(case, "skipped", message=result.reason)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"

    def badge(self) -> str:
        """A line of Markdown for a README: an image that says how many checks passed."""
        counts, colour = self.counts, "brightgreen" if self.is_good else "red"
        said = f"{counts['passed']} passed" if self.is_good else f"{counts['failed']} failed"
        text = f"nearfar {nearfar.__version__} laws: {said}"
        label, message = (_quoted(piece) for piece in (f"nearfar {nearfar.__version__} laws", said))
        return f"![{text}](https://img.shields.io/badge/{label}-{message}-{colour})"


def _quoted(text: str) -> str:
    """Text as a badge's address has it: what parts its pieces is doubled."""
    return text.replace("-", "--").replace("_", "__").replace(" ", "%20")


def run(checks: Iterable[Check], plugin: Plugin, *, seen: Callable[[Result], None] = lambda result: None) -> Report:
    """Run checks of one plugin; ``seen`` is told of each result as it comes."""
    results = []
    for check in checks:
        results.append(check.run())
        seen(results[-1])
    return Report(plugin, tuple(results))
