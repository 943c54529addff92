"""Logs as tables: CSV files that a run which goes on finds as it left them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearfar.files import write_text


class CsvTable:
    """A table that grows by rows, the first column being ``step``.

    Parameters
    ----------
    path : Path
        The file.
    after : int
        Rows of a later step are dropped: they belong to work that was lost and is done again.
    """

    def __init__(self, path: Path, *, after: int = 0) -> None:
        self.path = path
        self.columns: list[str] = ["step"]
        rows = self._read(after)
        self._rewrite(rows)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Append a row; a new column is added to all rows."""
        new = [name for name in values if name not in self.columns]
        if new:
            rows = self._read(step)
            self.columns += new
            self._rewrite(rows)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writerow({"step": step, **{k: _text(v) for k, v in values.items()}})

    def _read(self, until: int) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            # A row cut short by a kill has no number, or fewer cells than there are columns.
            rows = [row for row in reader if (row.get("step") or "").isdigit() and None not in row.values()]
            self.columns = list(reader.fieldnames or ["step"])
        return [row for row in rows if int(row["step"]) <= until]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())


def _text(value: Any) -> str:
    # The shortest text that reads back as the same number, so that two logs can be compared for equality.
    return repr(value) if isinstance(value, float) else str(value)
