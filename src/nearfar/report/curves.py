"""The logs of a run as curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nearfar.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Curves:
    """The columns of a log.

    Attributes
    ----------
    columns
        Name → (step, value) of each row that has a finite one.
    left_out
        Name → how many values are not finite.
    """

    columns: Mapping[str, tuple[tuple[float, float], ...]]
    left_out: Mapping[str, int]


def read_curves(path: Path) -> Curves:
    """Read ``train.csv`` or ``validation.csv``.

    Raises
    ------
    CheckpointError
        It is missing, or not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            names = [name for name in reader.fieldnames or () if name not in ("step", "epoch")]
            rows = list(reader)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent.name}/{path.name} is missing") from None
    except (OSError, ValueError, csv.Error) as error:
        raise CheckpointError(f"{path.parent.name}/{path.name} cannot be read: {error}") from error
    columns: dict[str, tuple[tuple[float, float], ...]] = {}
    left_out: dict[str, int] = {}
    for name in names:
        values = [(step, value) for row in rows if (pair := _pair(row, name)) for step, value in [pair]]
        columns[name] = tuple(pair for pair in values if math.isfinite(pair[1]))
        left_out[name] = len(values) - len(columns[name])
    if not any(columns.values()):
        raise CheckpointError(f"{path.parent.name}/{path.name} has no rows")
    return Curves({name: points for name, points in columns.items() if points}, left_out)


def _pair(row: Mapping[str, str | None], name: str) -> tuple[float, float] | None:
    """The step and the value; None where a cell is empty or the row was cut short by a kill."""
    try:
        return float(int(row["step"] or "")), float(row[name] or "")
    except (KeyError, TypeError, ValueError):
        return None
