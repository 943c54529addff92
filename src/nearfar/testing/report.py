"""What came of all checks of a plugin, and how it is written down."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, get_args
from urllib.parse import quote
from xml.etree import ElementTree

import torch

import nearfar
from nearfar.discovery import Plugin
from nearfar.testing.check import Check, Result, Status
from nearfar.testing.law import LAWS

__all__ = ["STATUSES", "Report", "run"]

#: What may come of a check, in the order in which it is counted.
STATUSES: tuple[str, ...] = get_args(Status)


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
    def by_part(self) -> dict[str, Counter[str]]:
        """Part → status → how many of its checks have it; the plugin as a whole is a part of its own name."""
        found: dict[str, Counter[str]] = {}
        for result in self.results:
            found.setdefault(result.part, Counter())[result.status] += 1
        return found

    @property
    def is_good(self) -> bool:
        """Whether something was checked and nothing failed: no check at all is a failure."""
        return self.counts["passed"] > 0 and self.counts["failed"] == 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON-serialisable data."""
        laws = dict.fromkeys(result.law for result in self.results)
        return {
            "plugin": self.plugin.namespace,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "nearfar": nearfar.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            **{status: self.counts[status] for status in STATUSES},
            "checks": [asdict(result) | {"seconds": round(result.seconds, 3)} for result in self.results],
            "laws": {name: LAWS[name].says for name in laws},
        }

    def to_junit(self) -> str:
        """As JUnit's XML, which continuous integration reads."""
        counts = self.counts
        suite = ElementTree.Element(
            "testsuite",
            name=_printable(f"nearfar check-plugin {self.plugin.namespace}"),
            tests=str(len(self.results)),
            failures=str(counts["failed"]),
            errors="0",
            skipped=str(counts["skipped"] + counts["expected"]),
            time=f"{sum(result.seconds for result in self.results):.3f}",
        )
        for result in self.results:
            name = result.id.partition("::")[2]
            case = ElementTree.SubElement(suite, "testcase", classname=_printable(result.part), name=_printable(name))
            case.set("time", f"{result.seconds:.3f}")
            if result.status == "failed":
                message = _printable(result.reason.partition("\n")[0])
                ElementTree.SubElement(case, "failure", message=message).text = _printable(result.reason)
            elif result.status != "passed":
                ElementTree.SubElement(case, "skipped", message=_printable(f"{result.status}: {result.reason}"))
        ElementTree.indent(suite)
        # As bytes: as text it would name the encoding of the terminal.
        written: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
        return written.decode("utf-8") + "\n"

    def badge(self) -> str:
        """A line of Markdown for a README: an image that says how many checks passed."""
        counts = self.counts
        said = f"{counts['failed']} failed" if counts["failed"] else f"{counts['passed']} passed"
        label, colour = f"nearfar {nearfar.__version__} laws", "brightgreen" if self.is_good else "red"
        address = "-".join((_quoted(label), _quoted(said), colour))
        return f"![{label}: {said}](https://img.shields.io/badge/{address})"


def run(
    checks: Iterable[Check],
    plugin: Plugin,
    *,
    starts: Callable[[Check], None] = lambda check: None,
    seen: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Run checks of one plugin; ``starts`` is told of each before it runs, ``seen`` of what came of it."""
    results = []
    for check in checks:
        starts(check)
        results.append(check.run())
        seen(results[-1])
    return Report(plugin, tuple(results))


#: What XML has no way of writing: control characters, and halves of characters.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _printable(text: str) -> str:
    """Text with what XML forbids, and the colours of a terminal, taken out."""
    return _FORBIDDEN.sub("", re.sub("\x1b\\[[0-9;]*m", "", text))


def _quoted(text: str) -> str:
    """Text as a badge's address has it: what parts its pieces is doubled."""
    return quote(text.replace("-", "--").replace("_", "__"), safe="")
