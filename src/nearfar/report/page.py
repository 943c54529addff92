"""One page of one or more runs: HTML with all it needs inside."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from nearfar.errors import ConfigError
from nearfar.files import require_folder, require_new, write_text
from nearfar.report.chart import Chart, Line, chart
from nearfar.report.comparison import comparison
from nearfar.report.curves import Curves
from nearfar.report.scenes import MAP_CLASSES, MAP_IMAGES, MOST_THUMBNAILS
from nearfar.report.subject import Subject, read_subject
from nearfar.report.thumbnail import SIDE
from nearfar.train.folder import RunFolder
from nearfar.train.job import resolve_device
from nearfar.train.table import METRICS, ROWS

_FOLDER = Path(__file__).parent
#: Charts of a log, at most.
MOST_CHARTS = 12


@dataclass(frozen=True, slots=True)
class Report:
    """A page that was written: where, how large in bytes, and what each run lacks, a sentence each."""

    path: Path
    size: int
    notes: tuple[str, ...]


def write_report(
    runs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    data: Any = None,
    device: str = "auto",
    overwrite: bool = False,
) -> Report:
    """Write one HTML file about runs: curves, figures with intervals, pictures, recipes.

    It loads nothing from elsewhere and runs no script. The same runs give the same bytes on the same machine.

    Parameters
    ----------
    runs : sequence of path
        Run folders, shown side by side; what one lacks is named on the page and left out.
    output : path
        Of the page.
    data : optional
        As in :func:`nearfar.train.evaluate`, for all runs: other images than their own test classes.
    device : {"auto", "cpu", "cuda"}
        Where models compute.
    overwrite : bool
        Whether ``output`` may be there already.

    Returns
    -------
    Report

    Raises
    ------
    CheckpointError
        One of ``runs`` is not the folder of a run.
    ConfigError
        ``output`` is there already or cannot be written, no run or the same run twice is given, or a configuration
        cannot be read.
    """
    output = Path(output)
    if output.is_dir():
        raise ConfigError(f"{output} is a folder: give the name of a file")
    require_new(output, overwrite=overwrite)
    require_folder(output)
    folders = [RunFolder.open(path) for path in runs]
    names = _names(folders)
    where = resolve_device(device)
    subjects = [
        read_subject(folder, name, data=data, device=where) for folder, name in zip(folders, names, strict=True)
    ]
    # Names of files need not be text, and their stray halves of characters cannot be encoded.
    text = render(subjects).encode("utf-8", "replace").decode("utf-8")
    try:
        write_text(output, text)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror or error}") from error
    notes = tuple(f"{subject.name}: {note}" for subject in subjects for note in subject.notes)
    return Report(output, len(text.encode()), notes)


def render(subjects: Sequence[Subject]) -> str:
    """The page of runs, as text."""
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            subjects=subjects,
            title=", ".join(subject.name for subject in subjects),
            tables=comparison(subjects),
            same_data=len({subject.seen.judged.digest for subject in subjects if subject.seen.judged}) <= 1,
            training=_charts([(subject.name, subject.training) for subject in subjects]),
            validation=_charts([(subject.name, subject.validation) for subject in subjects]),
            roc=_roc(subjects),
            histograms=[_histogram(subject) for subject in subjects],
            versions=versions(),
            rows=ROWS,
            metrics=METRICS,
            limits={
                "thumbnails": MOST_THUMBNAILS,
                "side": SIDE,
                "classes": MAP_CLASSES,
                "each": MAP_IMAGES,
            },
        )
    )


def versions() -> Mapping[str, str]:
    """What made the page."""
    names = ("nearfar", "torch", "timm")
    return {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """The names of the folders, or their paths where two have one name."""
    if not folders:
        raise ConfigError("a report is of at least one run")
    real = [folder.path.resolve() for folder in folders]
    if twice := next((folder for folder, path in zip(folders, real, strict=True) if real.count(path) > 1), None):
        raise ConfigError(f"{twice} is given twice")
    names = [path.name for path in real]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _charts(logs: Sequence[tuple[str, Curves | None]]) -> tuple[list[Chart], list[str]]:
    """A chart a column, with a line a run; and what is not drawn, a sentence each."""
    columns = dict.fromkeys(name for _, log in logs if log is not None for name in log.columns)
    charts = []
    for column in list(columns)[:MOST_CHARTS]:
        lines = [
            Line(name, log.columns[column], place)
            for place, (name, log) in enumerate(logs)
            if log is not None and column in log.columns
        ]
        charts.append(chart(column, lines, x_title="step", y_title=column))
    unsaid = [f"Further columns of the log are not drawn: {', '.join(list(columns)[MOST_CHARTS:])}."]
    left_out = [
        f"{name}: {count} values of {column} are not finite and not drawn."
        for name, log in logs
        if log is not None
        for column, count in log.left_out.items()
        if count
    ]
    return charts, (unsaid if len(columns) > MOST_CHARTS else []) + left_out


def _roc(subjects: Sequence[Subject]) -> Chart | None:
    lines = [
        Line(subject.name, subject.seen.pairs.curve, place)
        for place, subject in enumerate(subjects)
        if subject.seen.pairs is not None
    ]
    if not lines:
        return None
    titles = {"x_title": "false-accept rate", "y_title": "true-accept rate"}
    return chart("ROC", lines, logarithmic=True, y_range=(0.0, 1.0), **titles)


def _histogram(subject: Subject) -> Chart | None:
    if subject.seen.pairs is None:
        return None
    genuine, impostors = subject.seen.pairs.genuine, subject.seen.pairs.impostors
    lines = [Line("pairs of one class", genuine, 0), Line("pairs of two classes", impostors, 1)]
    return chart(f"Distances, {subject.name}", lines, x_title="cosine distance", y_title="share of pairs")


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
