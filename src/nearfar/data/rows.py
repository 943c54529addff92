"""The rows of a table, CSV or Parquet, as text, one at a time."""

from __future__ import annotations

import csv
import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nearfar.errors import DataError, MissingExtra, NearfarWarning

#: The endings, in lower case, of the files that are read as tables.
TABLES = (".csv", ".parquet")
#: How alike two names of columns are where one is taken for the other misspelt: ``temperature`` is no ``template``.
_ALIKE = 0.75
#: What else parts the cells of files that are called CSV.
_OTHER_COMMAS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def open_rows(
    path: Path, columns: Sequence[str], needed: Sequence[str]
) -> tuple[dict[str, int], Iterator[tuple[int, list[str]]]]:
    """Open a table.

    Parameters
    ----------
    path : Path
        A file ``….csv``, in UTF-8 with a line of column names, or ``….parquet``.
    columns : sequence of str
        Those that are known; others are passed over, with a :class:`~nearfar.errors.NearfarWarning` where one is named
        much like one of these that the table lacks.
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
    known = [name for name in columns if name in names]
    meant = _misspelt(names, [name for name in columns if name not in names])
    if missing := [name for name in needed if name not in names]:
        raise DataError(_said_missing(path, missing[0], names, meant))
    if repeated := [name for name in known if names.count(name) > 1]:
        raise DataError(f"the table {path} has {names.count(repeated[0])} columns {repeated[0]!r}: leave one")
    for name, column in meant.items():
        warnings.warn(
            f"the column {name!r} of {path} is passed over; did you mean {column!r}? Known are {', '.join(columns)}",
            NearfarWarning,
            stacklevel=1,  # always of this line, so that a table that is read again is told of once
        )
    return {name: place for place, name in enumerate(known)}, enumerate(rows, 2)


def _misspelt(names: Sequence[str], lacking: Sequence[str]) -> dict[str, str]:
    """Column → which of those that are lacking it is the name of, but for some letters, capitals or an ``id``."""
    found = {name: _closest(name.lower().removesuffix("id").strip("_ "), lacking) for name in names}
    return {name: close for name, close in found.items() if close is not None}


def _closest(name: str, lacking: Sequence[str]) -> str | None:
    """The one that a name is the beginning of, or much like."""
    begun = [column for column in lacking if len(name) > 2 and column.startswith(name)]
    return next(iter(begun or difflib.get_close_matches(name, lacking, n=1, cutoff=_ALIKE)), None)


def _said_missing(path: Path, column: str, names: Sequence[str], meant: Mapping[str, str]) -> str:
    found = ", ".join(map(repr, names[:8])) or "none"
    said = f"the table {path} has no column {column!r}: its columns are {found}"
    if alike := [name for name in names if meant.get(name) == column]:
        return f"{said}; rename {alike[0]!r} if that is it"
    parts = [words for mark, words in _OTHER_COMMAS.items() if column in names[0].split(mark)]
    return f"{said}. It is separated by {parts[0]}: save it with commas" if parts else said


def _read(path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """The names of all columns; then of each row the cells of those that are known, in their order."""
    try:
        yield from _read_parquet(path, columns) if path.suffix.lower() == ".parquet" else _read_csv(path, columns)
    except OSError as error:
        said = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"cannot read the table {path}: {said}") from error


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = (line for line in csv.reader(file, strict=True) if line)
            names = [name.strip() for name in next(lines, [])]
            if not names:
                raise DataError(f"the table {path} is empty: its first line names the columns")
            yield names
            places = [names.index(name) for name in columns if name in names]
            for number, line in enumerate(lines, 2):
                if len(line) != len(names):
                    raise DataError(
                        f"row {number} of the table {path} has {len(line)} cells, and there are {len(names)} columns"
                    )
                yield [line[place].strip() for place in places]
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
        yield list(found)
        for batch in file.iter_batches(columns=known):
            listed = [batch.column(name).to_pylist() for name in known]
            cells = [["" if cell is None else str(cell).strip() for cell in column] for column in listed]
            yield from map(list, zip(*cells, strict=True))
    except (ArrowException, ValueError, OverflowError, MemoryError) as error:  # a damaged one fails in many ways
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"the table {path} is no Parquet: {said}") from error
