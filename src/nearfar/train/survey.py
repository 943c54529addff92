"""What there is in a folder, a table or a record file of images, before anything is trained on it."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nearfar.cores import usable_cores
from nearfar.data import NAMED, TABLES, ClassSubset, ClassUnion, ImageFolder, ImageSource, ImageTable, RecordFaces
from nearfar.data.image import dimensions
from nearfar.errors import DataError
from nearfar.train.sources import open_sources, validates

#: Of more images the headers are not read: they are spread evenly over all, and a median needs no more.
MOST_HEADERS = 512
#: The part of the training classes that validates where the data say of none.
FOLD = "1/5"


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What was found.

    Parameters
    ----------
    source
        As a configuration says it.
    divided
        Whether the data say themselves which classes are for training, validation and test.
    counts
        Images of each class that is trained on.
    classes, images
        Of all splits together.
    sides
        The shorter side in pixels of the images whose headers were read.
    shapes
        How many times as high as wide they are.
    fold
        Which part of the training classes is to validate, where the data say of none.
    """

    source: str
    divided: bool
    counts: tuple[int, ...]
    classes: int
    images: int
    sides: tuple[int, ...]
    shapes: tuple[float, ...] = (1.0,)
    fold: str | None = None

    @property
    def typical(self) -> int:
        """The median number of images of a training class."""
        return int(statistics.median_low(self.counts))

    @property
    def trained(self) -> int:
        """How many images are trained on."""
        return sum(self.counts)

    @property
    def side(self) -> int:
        """The median of the shorter sides, in pixels."""
        return int(statistics.median_low(self.sides))

    @property
    def shape(self) -> float:
        """The median of how many times as high as wide they are."""
        return statistics.median_low(self.shapes)


def survey(source: str | os.PathLike[str]) -> Survey:
    """Look at a folder, a table or a record file of images.

    Raises
    ------
    DataError
        It is none of them, cannot be trained on, or one of the images that were looked at is none.
    """
    said = os.fspath(source)
    path = Path(said)
    if not path.is_dir() and (path.suffix.lower() not in (*TABLES, ".rec") or not path.exists()):
        found = "a file of another kind" if path.exists() else "not there"
        kinds = "give a folder root/class/file or root/split/class/file, a table ….csv, or a record file ….rec"
        raise DataError(f"{said} is {found}: {kinds}")
    # A folder that is called as embedded data are is meant only with a path in front.
    said = os.path.join(os.curdir, said) if said in NAMED else said
    fold = None if validates(said) else FOLD
    splits = open_sources(said, None, image_size=64, fold=fold)
    images = [place for part in splits for place in _places(part)]
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        sizes = list(pool.map(_size, _spread(images, MOST_HEADERS)))
    return Survey(
        source=said,
        divided=fold is not None or not isinstance(splits.train, ClassSubset),
        fold=fold,
        counts=tuple(splits.train.labels.bincount().tolist()),
        classes=sum(part.num_classes for part in splits),
        images=sum(map(len, splits)),
        sides=tuple(min(size) for size in sizes),
        shapes=tuple(height / width for width, height in sizes),
    )


_Place = tuple[ImageSource, int]


def _places(source: ImageSource) -> Sequence[_Place]:
    """The file or the record of each image: the source that reads it, and its number there."""
    if isinstance(source, ClassSubset):
        whole = _places(source.source)
        return [whole[index] for index in source.indices.tolist()]
    if isinstance(source, ClassUnion):
        return [place for each in source.sources for place in _places(each)]
    return [(source, index) for index in range(len(source))]


def _size(place: _Place) -> tuple[int, int]:
    """(width, height), of which only the header is read."""
    source, index = place
    if isinstance(source, RecordFaces):
        return dimensions(source.encoded(index), f"record {int(source.keys[index])} of {source.path}")
    assert isinstance(source, (ImageFolder, ImageTable))
    return dimensions(source.paths[index])


def _spread(places: Sequence[_Place], most: int) -> list[_Place]:
    """At most so many, evenly over all."""
    kept = min(most, len(places))
    return [places[number * len(places) // kept] for number in range(kept)]
