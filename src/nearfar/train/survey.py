"""What there is in a folder or a table of images, before anything is trained on it."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nearfar.data import NAMED, TABLES, ClassSubset, ImageFolder, ImageSource, ImageTable
from nearfar.data.image import dimensions
from nearfar.errors import DataError
from nearfar.train.sources import open_sources

#: Of more images the headers are not read: they are spread evenly over all, and a median needs no more.
MOST_HEADERS = 512


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
    """

    source: str
    divided: bool
    counts: tuple[int, ...]
    classes: int
    images: int
    sides: tuple[int, ...]

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


def survey(source: str | os.PathLike[str]) -> Survey:
    """Look at a folder or a table of images.

    Raises
    ------
    DataError
        It is neither, cannot be trained on, or one of the images that were looked at is none.
    """
    said = os.fspath(source)
    path = Path(said)
    if not path.is_dir() and (path.suffix.lower() not in TABLES or not path.exists()):
        found = "a file of another kind" if path.exists() else "not there"
        raise DataError(f"{said} is {found}: give a folder root/class/file or root/split/class/file, or a table ….csv")
    # A folder that is called as embedded data are is meant only with a path in front.
    said = os.path.join(os.curdir, said) if said in NAMED else said
    splits = open_sources(said, None, image_size=64)
    paths = [path for part in splits for path in _paths(part)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        sizes = list(pool.map(dimensions, _spread(paths, MOST_HEADERS)))
    return Survey(
        source=said,
        divided=not isinstance(splits.train, ClassSubset),
        counts=tuple(splits.train.labels.bincount().tolist()),
        classes=sum(part.num_classes for part in splits),
        images=sum(map(len, splits)),
        sides=tuple(min(size) for size in sizes),
    )


def _paths(source: ImageSource) -> Sequence[Path]:
    if isinstance(source, ClassSubset):
        whole = _paths(source.source)
        return [whole[index] for index in source.indices.tolist()]
    assert isinstance(source, (ImageFolder, ImageTable))
    return source.paths


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many, evenly over all."""
    kept = min(most, len(paths))
    return [paths[place * len(paths) // kept] for place in range(kept)]
