"""The tables of a page: a row a figure, a column a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearfar.report.figures import Figure
from nearfar.report.subject import Subject
from nearfar.train.table import METRICS, ROWS

_MISSING = "–"
_NAMES = {**METRICS, "auc": "AUC", "eer": "EER"}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a heading and a cell a run, below a title."""

    title: str
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def comparison(subjects: Sequence[Subject]) -> tuple[Table, ...]:
    """What figures and facts there are, one table a sort; a dash stands where a run has none."""
    return tuple(
        table
        for table in (
            _table("Retrieval, per cent", subjects, lambda subject: _figures(subject.seen.retrieval)),
            _table("Verification, per cent", subjects, lambda subject: _figures(_pairs(subject))),
            _table("The table each run ended with, per cent", subjects, _ended),
            _table("Best validation, its metrics in per cent", subjects, _validated),
            _table("The run", subjects, _run),
        )
        if table.rows
    )


def figure_text(figure: Figure) -> str:
    """In per cent, with the interval behind."""
    text = f"{100 * figure.value:.1f}"
    if figure.interval is None:
        return text
    low, high = figure.interval
    return f"{text} ({100 * low:.1f} to {100 * high:.1f})"


def _table(title: str, subjects: Sequence[Subject], cells: Callable[[Subject], Mapping[str, str]]) -> Table:
    columns = [cells(subject) for subject in subjects]
    names = dict.fromkeys(name for column in columns for name in column)
    return Table(title, tuple((name, tuple(column.get(name, _MISSING) for column in columns)) for name in names))


def _figures(figures: Sequence[Figure]) -> dict[str, str]:
    return {_named(figure.name): figure_text(figure) for figure in figures}


def _named(name: str) -> str:
    return f"TAR at FAR {name.removeprefix('tar@')}" if name.startswith("tar@") else _NAMES.get(name, name)


def _pairs(subject: Subject) -> tuple[Figure, ...]:
    return () if subject.seen.pairs is None else subject.seen.pairs.figures


def _ended(subject: Subject) -> dict[str, str]:
    rows = subject.metrics.get("test", {})
    return {
        f"{METRICS.get(name, name)}, {ROWS.get(row, row)}": f"{100 * value:.1f}"
        for row, values in rows.items()
        if isinstance(values, dict)
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def _validated(subject: Subject) -> dict[str, str]:
    found = subject.metrics.get("validation", {})
    shares = {METRICS[name]: f"{100 * value:.1f}" for name, value in found.items() if name in METRICS}
    return _facts({name: value for name, value in found.items() if name not in METRICS}) | shares


def _run(subject: Subject) -> dict[str, str]:
    judged = {}
    if subject.seen.judged is not None:
        sort = "unseen test classes" if subject.seen.judged.unseen else "classes"
        says = (
            f"{subject.seen.judged.source}: {subject.seen.judged.images} images of {subject.seen.judged.classes} {sort}"
        )
        judged = {"judged on": says}
    times = {f"{name} time, seconds": value for name, value in subject.metrics.get("times", {}).items()}
    data = {name.replace("_", " "): value for name, value in subject.metrics.get("data", {}).items()}
    return judged | _facts(subject.metrics.get("run")) | _facts(data) | _facts(times)


def _facts(values: Any) -> dict[str, str]:
    """Facts as they are; long fractions with four digits."""
    if not isinstance(values, dict):
        return {}
    return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}
