"""Pairs that a benchmark lists: a table of two names and whether they are of one identity."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nearfar.data.files import ImageFiles
from nearfar.data.rows import open_rows
from nearfar.data.size import Size
from nearfar.errors import DataError

_COLUMNS = ("a", "b", "same", "fold")
_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True, eq=False)
class PairList:
    """Pairs by name.

    Attributes
    ----------
    path : Path
        The table.
    names : tuple of str
        The distinct names of both columns: of images or of templates.
    first, second : Tensor
        (n,) int64, the places in ``names`` of each pair.
    same : Tensor
        (n,) bool.
    folds : Tensor or None
        (n,) int64, where the table tells them.
    """

    path: Path
    names: tuple[str, ...]
    first: Tensor
    second: Tensor
    same: Tensor
    folds: Tensor | None = None

    def __len__(self) -> int:
        return len(self.same)

    def images(self) -> tuple[Path, ...]:
        """The names as images, taken from the table's folder."""
        return tuple(self.path.parent / name for name in self.names)

    def places(self, known: Sequence[str | os.PathLike[str]], what: str, *, files: bool = False) -> Tensor:
        """Where each of ``names`` is among those that are known, (len(names),) int64.

        Parameters
        ----------
        known : sequence of str or path
            Names, or images.
        what : str
            What they are, for the message.
        files : bool
            Whether names are images, which are the same where their files are.

        Raises
        ------
        DataError
            One is not among them.
        """
        asked = [str(path.resolve()) for path in self.images()] if files else self.names
        place = {str(Path(name).resolve()) if files else str(name): number for number, name in enumerate(known)}
        if missing := [name for name, key in zip(self.names, asked, strict=True) if key not in place]:
            raise DataError(
                f"{len(missing)} of the {len(self.names)} names in {self.path} are no {what}, first {missing[0]}"
            )
        return torch.tensor([place[key] for key in asked])

    def check_labels(self, labels: Tensor) -> None:
        """Verify that the pairs told to be the same are those of one label; ``labels`` (len(names),).

        Raises
        ------
        DataError
            A pair contradicts them.
        """
        wrong = ((labels[self.first] == labels[self.second]) != self.same).nonzero()[:, 0]
        if len(wrong):
            row = int(wrong[0])
            pair = f"{self.names[self.first[row]]} and {self.names[self.second[row]]}"
            told = "of one identity" if self.same[row] else "of two identities"
            raise DataError(
                f"{len(wrong)} pairs of {self.path} contradict the labels of the data, first row {row + 2}: {pair} are "
                f"told to be {told}"
            )


class ListedImages(ImageFiles):
    """The images of a list of pairs, each once; they have no classes.

    Parameters
    ----------
    pairs : PairList
        Whose names are images.
    image_size : int or (height, width)
        Of the images given, in pixels.

    Raises
    ------
    DataError
        An image is not there.
    """

    def __init__(self, pairs: PairList, *, image_size: Size) -> None:
        self.paths, self.image_size = pairs.images(), image_size
        if missing := [path for path in self.paths if not path.is_file()]:
            raise DataError(
                f"{len(missing)} of {len(self.paths)} images of {pairs.path} are not there, first {missing[0]}: paths "
                "are taken from the table's folder; where they are templates or images of a table, give that as --data"
            )
        self.labels = torch.zeros(len(self.paths), dtype=torch.int64)
        self.class_names = ("",)


def read_pair_list(path: str | os.PathLike[str]) -> PairList:
    """Read a table of pairs, ``….csv`` or ``….parquet``.

    The columns ``a`` and ``b`` name two images, by paths from the table's folder, or two templates; ``same`` is 1 or 0,
    true or false, yes or no. ``fold`` may be there: which part of a cross-validation a pair belongs to. Others are
    passed over. Reading takes some 130 bytes a pair: the fifteen million of IJB-C two gigabytes.

    Raises
    ------
    DataError
        The table cannot be read or lacks a column, a cell is empty or no truth value, a pair is of one name with
        itself, there is a pair twice with two truths, or there are no genuine or no impostor pairs.
    MissingExtra
        pyarrow is missing, and the table is Parquet.
    """
    path = Path(path)
    places, rows = open_rows(path, _COLUMNS, _COLUMNS[:3])
    number: dict[str, int] = {}
    fold: dict[str, int] = {}
    sides, same, folds = (array("q"), array("q")), bytearray(), array("q")
    a, b, truth = (places[name] for name in _COLUMNS[:3])
    for row, cells in rows:
        if empty := [name for name, place in places.items() if not cells[place]]:
            raise DataError(f"the cell {empty[0]!r} of row {row} of {path} is empty")
        if cells[a] == cells[b]:
            raise DataError(f"row {row} of {path} is a pair of {cells[a]} with itself: a pair has two")
        if (told := _TRUTH.get(cells[truth].lower())) is None:
            raise DataError(f"row {row} of {path} has {cells[truth]!r} for same: write 1 or 0")
        for side, place in zip(sides, (a, b), strict=True):
            side.append(number.setdefault(cells[place], len(number)))
        same.append(told)
        if "fold" in places:
            folds.append(fold.setdefault(cells[places["fold"]], len(fold)))
    if not same:
        raise DataError(f"the table {path} has no rows")
    first, second = (torch.frombuffer(side, dtype=torch.int64) for side in sides)
    found = PairList(
        path,
        tuple(number),
        first,
        second,
        torch.frombuffer(same, dtype=torch.uint8).bool(),
        torch.frombuffer(folds, dtype=torch.int64) if "fold" in places else None,
    )
    _check(found)
    return found


def _check(pairs: PairList) -> None:
    genuine = int(pairs.same.sum())
    if genuine in (0, len(pairs)):
        kind = "impostor" if genuine else "genuine"
        raise DataError(f"{pairs.path} has {len(pairs)} pairs and no {kind} ones: verification needs both")
    low, high = torch.minimum(pairs.first, pairs.second), torch.maximum(pairs.first, pairs.second)
    key = low * len(pairs.names) + high
    both = torch.unique(key[pairs.same])
    if len(twice := both[torch.isin(both, key[~pairs.same])]):
        one, other = divmod(int(twice[0]), len(pairs.names))
        raise DataError(
            f"{len(twice)} pairs of {pairs.path} are told to be the same and not, first {pairs.names[one]} and "
            f"{pairs.names[other]}: leave one row of each"
        )
