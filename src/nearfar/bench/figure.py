"""The figure of a comparison: each criterion's MAP@R with its interval, and every repeat as a dot."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.bench.cell import ENSEMBLES
from nearfar.figures import figure, save

if TYPE_CHECKING:
    from nearfar.bench.results import Results

_METRIC = "map@r"
_COLOURS = {"separated": "C0", "concatenated": "C1"}


def draw(results: Results, stem: Path) -> list[Path]:
    """Draw it as ``stem.png`` and ``stem.svg``; nothing where matplotlib is not installed.

    Parameters
    ----------
    results : Results
    stem : Path
        Without an ending.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return []
    rows = [row for row in results.rows if row.scores]
    made = figure(width=7.0, height=1.0 + 0.36 * len(rows))
    (axes,) = made.axes
    for ensemble, side in zip(ENSEMBLES, (-0.13, 0.13), strict=True):
        colour = _COLOURS[ensemble]
        for place, row in enumerate(rows):
            found = row.scores[ensemble][_METRIC]
            each = [100 * value for value in row.each[ensemble][_METRIC].values()]
            axes.plot(each, [place + side] * len(each), ".", color=colour, alpha=0.35, markersize=5)
            label = ensemble if place == 0 else None
            half = None if found.half is None else [100 * found.half]
            axes.errorbar(
                [100 * found.mean],
                [place + side],
                xerr=half,
                fmt="o",
                color=colour,
                capsize=3,
                markersize=5,
                label=label,
            )
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"MAP@R on {results.comparison.train.data.source}, test classes, per cent")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="best")
    return save(made, stem, overwrite=True)
