"""Pages on the laws of ``nearfar.testing``: which part keeps which, and why not where it does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nearfar.conformance import Report, Tally
from nearfar.describe import Description
from nearfar.markdown import bullets, fence, inline, table, toctree
from nearfar.spec import KINDS

__all__ = ["of_part", "pages"]

#: Status → how a cell of a table shows it.
_MARKS = {"passed": "✓", "skipped": "·", "expected": "○", "failed": "✗"}
_LEGEND = "✓ the law holds, · it does not apply, ○ it is known not to hold, for the reason below the table, ✗ it fails."

#: How many letters the names above the columns of a table may have together before another table is begun.
_WIDTH = 90


def of_part(d: Description, report: Report | None) -> str:
    """What is known of one part; how to find out where nothing is."""
    tally = report.of(d.full_name, d.kind) if report is not None else Tally(())
    command = fence("console", f"$ {d.check}")
    if report is None or not tally.checks:
        exceptions = {reason: [law] for law, reason in d.exceptions.items()}
        return _joined(command, *_listed("Laws it does not keep:", exceptions))
    namespace = d.full_name.partition(".")[0]
    where = f"[All parts of {namespace} side by side](../conformance/{namespace}.md)."
    return _joined(
        f"{tally} {_checked(report, d.version)} {where}",
        *_listed("Laws that fail:", tally.reasons("failed")),
        *_listed("Laws it does not keep:", tally.reasons("expected")),
        *_listed("Laws that do not apply:", tally.reasons("skipped")),
        command,
    )


def pages(
    descriptions: Sequence[Description], links: Mapping[tuple[str, str], str], reports: Mapping[str, Report]
) -> dict[str, str]:
    """``conformance.md``, and one page below it for each plugin of which there is a report.

    Parameters
    ----------
    descriptions
        Of the parts, in order.
    links
        Full name and kind → the part's page.
    reports
        Namespace → report.
    """
    plugins: dict[str, list[Description]] = {}
    for d in descriptions:
        plugins.setdefault(d.full_name.partition(".")[0], []).append(d)
    checked = {n: _Plugin(n, own, links, reports[n]) for n, own in plugins.items() if n in reports}
    made = {f"conformance/{namespace}.md": plugin.page() for namespace, plugin in checked.items()}
    made["conformance.md"] = _overview(plugins, checked)
    return made


def _overview(plugins: Mapping[str, Sequence[Description]], checked: Mapping[str, _Plugin]) -> str:
    said = {law: says for plugin in checked.values() for law, says in plugin.report.laws.items()}
    unchecked = [f"`nearfar check-plugin {namespace}`" for namespace in plugins if namespace not in checked]
    blocks = [
        "# Conformance",
        "Each part is held to the laws of its kind by `nearfar check-plugin`. A law that is known not to hold of a "
        "part stands in the part's spec, with the reason; should it hold one day, the check fails until that is taken "
        "out.",
    ]
    if checked:
        head = ("Plugin", "Version", "Parts", "Laws hold", "Do not apply", "Known not to hold", "Fail")
        blocks.append(table(head, [plugin.row() for plugin in checked.values()]))
    if unchecked:
        blocks.append(f"There is no report of these; run {' and '.join(unchecked)}.")
    if said:
        blocks += ["## The laws", table(("Law", "What it says"), [(f"`{n}`", inline(s)) for n, s in said.items()])]
    if checked:
        blocks.append(toctree(f"conformance/{namespace}" for namespace in checked))
    return _joined(*blocks) + "\n"


@dataclass(frozen=True, slots=True)
class _Plugin:
    """The parts of a plugin and the report of it."""

    namespace: str
    parts: Sequence[Description]
    links: Mapping[tuple[str, str], str]
    report: Report

    def tally(self, d: Description) -> Tally:
        return self.report.of(d.full_name, d.kind)

    def row(self) -> tuple[str, ...]:
        """The plugin in the table of all plugins."""
        tallies = [self.tally(d) for d in self.parts] + [self.report.of(self.namespace)]
        counts = [str(sum(t.count(status) for t in tallies)) for status in ("passed", "skipped", "expected", "failed")]
        name = f"[`{self.namespace}`](conformance/{self.namespace}.md)"
        return (name, self.report.version, str(len(self.parts)), *counts)

    def page(self) -> str:
        blocks = [
            f"# Conformance of {self.namespace}",
            f"{len(self.report.checks)} checks {_checked(self.report, self.parts[0].version)}",
            table(("Part", "Laws hold", "Do not apply", "Known not to hold", "Fail"), [*map(self._counts, self.parts)]),
            f"{_LEGEND} Why a law does not apply is said on the part's own page.",
        ]
        plugin = self.report.of(self.namespace)
        if plugin.checks:
            rows = [(f"`{law}`", _MARKS[mark]) for law, mark in plugin.marks().items()]
            blocks += ["## The plugin itself", table(("Law", self.namespace), rows), *self._reasons(plugin)]
        for kind in KINDS:
            own = [d for d in self.parts if d.kind == kind]
            if own:
                blocks.append(f"## {kind.capitalize()}{'es' if kind.endswith('s') else 's'}")
                for title, columns in _divided(own):
                    blocks += [*([f"### {title}"] if title else []), *self._matrix(columns)]
        return _joined(*blocks) + "\n"

    def _link(self, d: Description) -> str:
        return f"[{d.spec.name}](../{self.links[d.full_name, d.kind]})"

    def _counts(self, d: Description) -> tuple[str, ...]:
        tally = self.tally(d)
        if not tally.checks:
            return (self._link(d), "not checked", "", "", "")
        counts = [tally.count(status) for status in ("passed", "skipped", "expected", "failed")]
        return (self._link(d), *map(str, counts))

    def _matrix(self, parts: Sequence[Description]) -> Iterator[str]:
        """Laws as rows, parts as columns; laws that apply to none of the parts in a sentence below."""
        marks = {d.full_name: self.tally(d).marks() for d in parts}
        present = {law for found in marks.values() for law in found}
        laws = [law for law in dict.fromkeys(check.law for check in self.report.checks) if law in present]
        idle = [law for law in laws if all(found.get(law, "skipped") == "skipped" for found in marks.values())]
        rows = [
            (f"`{law}`", *(_MARKS.get(found.get(law, ""), " ") for found in marks.values()))
            for law in laws
            if law not in idle
        ]
        yield table(("Law", *map(self._link, parts)), rows)
        if idle:
            yield f"Laws that apply to none of these: {', '.join(f'`{law}`' for law in idle)}."
        for d in parts:
            yield from self._reasons(self.tally(d), d.spec.name)

    def _reasons(self, tally: Tally, name: str = "") -> Iterator[str]:
        prefix = f"`{name}`: " if name else ""
        yield from _listed(f"{prefix}laws that fail", tally.reasons("failed"))
        yield from _listed(f"{prefix}laws it does not keep", tally.reasons("expected"))
        if not name:
            yield from _listed("laws that do not apply", tally.reasons("skipped"))


def _divided(parts: Sequence[Description]) -> Iterator[tuple[str, list[Description]]]:
    """Parts in groups that fit beside each other: all of them where they do, else by family."""
    if sum(len(d.spec.name) for d in parts) <= _WIDTH:
        yield "", list(parts)
        return
    families: dict[str, list[Description]] = {}
    for d in parts:
        families.setdefault(d.family, []).append(d)
    for family, own in families.items():
        tables: list[list[Description]] = [[]]
        for d in own:
            if tables[-1] and sum(len(c.spec.name) for c in (*tables[-1], d)) > _WIDTH:
                tables.append([])
            tables[-1].append(d)
        title = inline(family.replace("_", " ").capitalize()) or "Others"
        for number, columns in enumerate(tables, start=1):
            yield (f"{title}, {number} of {len(tables)}" if len(tables) > 1 else title), columns


def _checked(report: Report, installed: str) -> str:
    said = f"in version {report.version}, by the laws of nearfar {report.nearfar}."
    return said if report.version == installed else f"{said} This page describes version {installed}: check it again."


def _listed(title: str, reasons: Mapping[str, Iterable[str]]) -> Iterator[str]:
    if reasons:
        yield title
        yield bullets(f"{', '.join(f'`{name}`' for name in names)}: {inline(why)}" for why, names in reasons.items())


def _joined(*blocks: str) -> str:
    return "\n\n".join(block for block in blocks if block)
