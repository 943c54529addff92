"""The rows of a table, CSV or Parquet, as text, one at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from nearfar.errors import DataError, MissingExtra

#: The endings, in lower case, of the files that are read as tables.
TABLES = (".csv", ".parquet")


def open_rows(
    path: Path, columns: Sequence[str], needed: Sequence[str]
) -> tuple[dict[str, int], Iterator[tuple[int, list[str]]]]:
    """Open a table.

    Parameters
    ----------
    path : Path
        A file ``….csv``, in UTF-8 with a line of column names, or ``….parquet``.
    columns : sequence of str
        Those that are known; others are passed over.
    needed : sequence of str
        Those of them that have to be there.

    Returns
    -------
    dict, iterator
        Column → its place in a row, of those that are there; and the rows, each with its number, which of the first
        is 2.

    Raises
    ------
    DataError
        The table cannot be read, lacks a column or has one twice; of a row, when it is reached.
    MissingExtra
        pyarrow is missing, and the table is Parquet.
    """
    rows = _read(path, columns)
    names = next(rows)
    if missing := [name for name in needed if name not in names]:
        found = ", ".join(map(repr, names[:8])) or "none"
        raise DataError(f"the table {path} has no column {missing[0]!r}: its columns are {found}")
    if repeated := [name for name in columns if names.count(name) > 1]:
        raise DataError(f"the table {path} has {names.count(repeated[0])} columns {repeated[0]!r}: leave one")
    return {name: names.index(name) for name in columns if name in names}, enumerate(rows, 2)


def _read(path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """The names of columns, then the rows."""
    try:
        yield from _read_parquet(path, columns) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except OSError as error:
        said = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"cannot read the table {path}: {said}") from error


def _read_csv(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = (line for line in csv.reader(file, strict=True) if line)
            names = [name.strip() for name in next(lines, [])]
            if not names:
                raise DataError(f"the table {path} is empty: its first line names the columns")
            yield names
            for number, line in enumerate(lines, 2):
                if len(line) != len(names):
                    raise DataError(
                        f"row {number} of the table {path} has {len(line)} cells, and there are {len(names)} columns"
                    )
                yield [cell.strip() for cell in line]
    except UnicodeDecodeError as error:
        raise DataError(f"the table {path} is not UTF-8: save it as such ({error.reason})") from error
    except csv.Error as error:
        raise DataError(f"the table {path} is no CSV: {error}") from error


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtra("reading Parquet", extra="parquet") from error
    try:
        file = parquet.ParquetFile(path)
        found = file.schema_arrow.names
        known = [name for name in columns if name in found]
        yield known or list(found)
        for batch in file.iter_batches(columns=known):
            cells = [["" if cell is None else str(cell).strip() for cell in column.to_pylist()] for column in batch]
            yield from map(list, zip(*cells, strict=True))
    except (ArrowException, ValueError, OverflowError, MemoryError) as error:  # a damaged one fails in many ways
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"the table {path} is no Parquet: {said}") from error
