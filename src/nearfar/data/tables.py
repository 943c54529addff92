"""A table of images, CSV or Parquet: a path and a label a row, and where there are any, cameras, splits, templates."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nearfar.data.files import ImageFiles
from nearfar.data.imagefolder import SPLIT_NAMES, natural
from nearfar.data.rows import open_rows
from nearfar.data.size import Size
from nearfar.errors import DataError

_COLUMNS = ("path", "label", "camera", "split", "template", "media")
#: What a split may be called, and what it is: queries and their gallery are a test that says what is searched in what.
_SPLITS = {**SPLIT_NAMES, "query": "test", "gallery": "test"}
#: The label of what a gallery has and nobody is to be judged by: cut badly, or of several people.
_JUNK = "-1"

_PARTS = tuple(dict.fromkeys(_SPLITS.values()))
_Columns = Mapping[str, Sequence[str]]


class ImageTable(ImageFiles):
    """The images that a table lists.

    The columns ``path`` and ``label`` must be there; ``camera``, ``split``, ``template`` and ``media`` may; others are
    passed over. Paths are taken from the table's folder. Labels and cameras are names: 7 and 07 are two.

    A split is ``train``, ``validation`` (or ``val``) or ``test``; in place of ``test`` there may be ``query`` and
    ``gallery``, as of re-identification: then every query is searched in the gallery. A label that only the gallery
    has is a distractor's. Images of the gallery labelled −1 are junk, neither right nor wrong, and left out:
    Market-1501 has both, and labels its distractors 0.

    Images of one ``template`` are judged as one, by the mean of their embeddings, as IJB does; those of one ``media``,
    a film, count within it as one image.

    Parameters
    ----------
    path : path
        A file ``….csv``, in UTF-8 with a line of column names, or ``….parquet``.
    image_size : int or (height, width)
        Of the images given, in pixels.

    Attributes
    ----------
    paths : tuple of Path
        The file of each image.
    cameras, templates, media : Tensor or None
        (n,) int64, where there is that column.
    camera_names : tuple of str
        Of each camera.
    queries : Tensor or None
        (n,) bool, of a part that has queries.
    junk : int
        How many images of the gallery are left out.
    parts : dict of str to ImageTable
        By split, where there is that column.
    labels, class_names
        As of every :class:`~nearfar.data.source.ImageSource`; names in natural order.

    Raises
    ------
    DataError
        The table cannot be read, lacks a column, has an empty cell, an unknown split, an image that is not there,
        queries without a gallery, a template of two labels, or a class with one image only in its split.
    MissingExtra
        pyarrow is missing, and the table is Parquet.
    """

    junk: int = 0
    parts: Mapping[str, ImageTable]

    def __init__(self, path: str | os.PathLike[str], *, image_size: Size = 64) -> None:
        self.path = Path(path)
        columns = _read(self.path)
        _check_cells(self.path, columns)
        self._fill(columns, image_size)
        missing = [place for place, image in enumerate(self.paths) if not image.is_file()]
        if missing:
            row, image = missing[0] + 2, self.paths[missing[0]]
            raise DataError(
                f"{len(missing)} of {len(self.paths)} images of {self.path} are not there, first {image} of row {row}: "
                "paths are taken from the table's folder"
            )
        parts: Mapping[str, ImageTable] = self.parts or {"": self}
        for split, part in parts.items():
            _check_part(part, f" of the split {split}" if split else "")

    def _fill(self, columns: _Columns, image_size: Size) -> None:
        self.image_size = image_size
        self.paths = tuple(self.path.parent / each for each in columns["path"])
        self.class_names, self.labels = _numbered(columns["label"])
        self.camera_names: tuple[str, ...] = ()
        if "camera" in columns:
            self.camera_names, self.cameras = _numbered(columns["camera"])
        if "template" in columns:
            self.template_names, self.templates = _numbered(columns["template"])
        if "media" in columns:
            self.media = _numbered(columns["media"])[1]
        splits = columns.get("split", ())
        rows = {part: [row for row, name in enumerate(splits) if _SPLITS[name] == part] for part in _PARTS}
        self.parts = {part: self._part(columns, own, image_size) for part, own in rows.items() if own}

    def _part(self, columns: _Columns, rows: Sequence[int], image_size: Size) -> ImageTable:
        """A table of some rows, which are of one split."""
        splits = columns["split"]
        kept = [row for row in rows if not (splits[row] == "gallery" and columns["label"][row] == _JUNK)]
        part = ImageTable.__new__(ImageTable)
        part.path = self.path
        part.junk = len(rows) - len(kept)
        own = {name: [cells[row] for row in kept] for name, cells in columns.items() if name != "split"}
        part._fill(own, image_size)
        if any(splits[row] in ("query", "gallery") for row in rows):
            part.queries = torch.tensor([splits[row] == "query" for row in kept], dtype=torch.bool)
        return part


def labels_of(table: str | os.PathLike[str], images: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """The label that a table has for each image; its other rows may be of other images, which need not be there.

    Raises
    ------
    DataError
        The table cannot be read, or does not have one of the images.
    MissingExtra
        pyarrow is missing, and the table is Parquet.
    """
    table = Path(table)
    columns = _read(table)
    _check_cells(table, columns)
    named = {
        (table.parent / path).resolve(): label for path, label in zip(columns["path"], columns["label"], strict=True)
    }
    wanted = [Path(image).resolve() for image in images]
    if missing := [image for image, path in zip(images, wanted, strict=True) if path not in named]:
        raise DataError(
            f"{len(missing)} of {len(images)} images are not in the table {table}, first {missing[0]}: its paths are "
            "taken from its folder"
        )
    return tuple(named[path] for path in wanted)


def _read(path: Path) -> dict[str, list[str]]:
    """The columns that are known, as text."""
    places, rows = open_rows(path, _COLUMNS, _COLUMNS[:2])
    columns: dict[str, list[str]] = {name: [] for name in places}
    for _, row in rows:
        for name, place in places.items():
            columns[name].append(row[place])
    if not columns["path"]:
        raise DataError(f"the table {path} has no rows")
    return columns


def _check_cells(path: Path, columns: _Columns) -> None:
    for name, cells in columns.items():
        if empty := [row for row, cell in enumerate(cells, 2) if not cell]:
            raise DataError(f"{len(empty)} cells of the column {name!r} of {path} are empty, first in row {empty[0]}")
        if broken := [row for row, cell in enumerate(cells, 2) if min(map(ord, cell)) < 32]:
            raise DataError(f"row {broken[0]} of {path} has a line break or a control character in {name!r}")
    repeated = [each for each, count in Counter(columns["path"]).items() if count > 1]
    if repeated:
        raise DataError(f"{len(repeated)} images are twice in {path}, first {repeated[0]}: leave one row each")
    if "media" in columns and "template" not in columns:
        raise DataError(f"{path} has a column 'media' and none 'template': films are of templates")
    _check_splits(path, columns)
    labels: dict[str, str] = {}
    for row, (template, label) in enumerate(zip(columns.get("template", ()), columns["label"], strict=False), 2):
        if labels.setdefault(template, label) != label:
            raise DataError(
                f"row {row} of {path} is of the template {template!r} and of {label!r}, and a row above it of "
                f"{labels[template]!r}: a template is of one"
            )


def _check_splits(path: Path, columns: _Columns) -> None:
    splits = columns.get("split", ())
    for row, (split, label) in enumerate(zip(splits, columns["label"], strict=False), 2):
        if split not in _SPLITS:
            raise DataError(
                f"row {row} of {path} is of the split {split!r}: splits are train, validation and test, or query and "
                "gallery in place of test"
            )
        if split == "query" and label == _JUNK:
            raise DataError(f"row {row} of {path} is a query labelled {_JUNK}, which is the label of junk in a gallery")
    found = set(splits)
    if found & {"query", "gallery"} and "test" in found:
        raise DataError(f"{path} has the split test beside query or gallery: a test is one or the other")
    if len(found & {"query", "gallery"}) == 1:
        raise DataError(f"{path} has no split {'gallery' if 'query' in found else 'query'}: a test has both")


def _check_part(part: ImageTable, where: str) -> None:
    """Raise a DataError unless there are pairs of one class, or for queries something to find."""
    if part.queries is not None:
        if not torch.isin(part.labels[part.queries], part.labels[~part.queries]).any():
            raise DataError(f"no query of {part.path} has its label in the gallery: nothing can be found")
        return
    lonely = (part.labels.bincount() == 1).nonzero()[:, 0].tolist()
    if lonely:
        raise DataError(
            f"{len(lonely)} classes{where} have only one image in {part.path}, first "
            f"{part.class_names[lonely[0]]!r}: pairs and retrieval need two or more of each"
        )


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """The distinct names in natural order, and the number of each one's."""
    distinct = tuple(sorted(set(names), key=natural))
    number = {name: place for place, name in enumerate(distinct)}
    return distinct, torch.tensor([number[name] for name in names])
