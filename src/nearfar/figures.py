"""Figures: drawn with matplotlib where that is installed, written as PNG and SVG, never over what is there already.

A figure is made without matplotlib's global state, so that drawing needs no display and changes nobody's settings.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nearfar.errors import ConfigError, MissingExtra

__all__ = ["FORMATS", "figure", "require_free", "require_matplotlib", "save"]

#: The formats that a figure is written in.
FORMATS = ("png", "svg")


def require_matplotlib(purpose: str) -> None:
    """Whether figures can be drawn at all; to be asked before hours are spent on what is to be drawn.

    Raises
    ------
    MissingExtra
        matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra(purpose, extra="plot")


def require_free(stems: Iterable[Path], *, overwrite: bool) -> None:
    """Whether figures may be written as these paths without an ending.

    Raises
    ------
    ConfigError
        A file is there already, and ``overwrite`` is not given.
    """
    for path in _paths(stems):
        if path.is_dir() or (path.exists() and not overwrite):
            hint = "choose another name with -o" if path.is_dir() else "give --overwrite, or another name with -o"
            raise ConfigError(f"{path} is there already; {hint}")


def figure(rows: int = 1, columns: int = 1, *, width: float = 5.0, height: float = 3.6, **options: Any) -> Any:
    """A figure with a grid of axes: ``figure.axes`` has them row by row.

    Parameters
    ----------
    rows, columns
        Of the grid.
    width, height
        Of one of its cells, in inches.
    **options
        For :meth:`matplotlib.figure.Figure.subplots`.

    Raises
    ------
    MissingExtra
        matplotlib is not installed.
    """
    require_matplotlib("drawing")
    from matplotlib.figure import Figure

    made = Figure(figsize=(columns * width, rows * height), layout="constrained")
    made.subplots(rows, columns, **options)
    return made


def save(drawn: Any, stem: Path, *, overwrite: bool = False) -> list[Path]:
    """Write a figure as ``stem.png`` and ``stem.svg``; the same figure gives the same bytes.

    Raises
    ------
    ConfigError
        A file is there already, and ``overwrite`` is not given.
    """
    from matplotlib import rc_context

    require_free([stem], overwrite=overwrite)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = _paths([stem])
    for path in paths:
        # Both would hold the time otherwise.
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        with rc_context({"svg.hashsalt": "nearfar"}):
            drawn.savefig(path, dpi=150, metadata=metadata)
    return paths


def _paths(stems: Iterable[Path]) -> list[Path]:
    return [stem.with_name(f"{stem.name}.{form}") for stem in stems for form in FORMATS]
