"""The three class-disjoint parts of a run's data."""

from __future__ import annotations

import itertools
import os
import signal
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nearfar.cores import usable_cores
from nearfar.data import NAMED, SPLITS, Adapted, ImageSource, has_split, open_dataset, open_file
from nearfar.data.imagefolder import split_folders
from nearfar.data.size import Size
from nearfar.data.source import ClassSubset, ClassUnion
from nearfar.data.split import fold_classes
from nearfar.errors import ConfigError, DataError, NearfarWarning

#: How a data set that came as an object is written into the configuration.
FROM_PYTHON = "python:"


class Sources(NamedTuple):
    """Classes to learn from, to choose the weights by, and to be judged on."""

    train: ImageSource
    validation: ImageSource
    test: ImageSource

    def check_disjoint(self) -> None:
        """Verify that no class of one part is in another.

        Raises
        ------
        DataError
            Folders of two parts have a class in common.
        """
        _check_disjoint(dict(zip(SPLITS, self, strict=True)))

    def check(self) -> None:
        """Verify that no class of one part is in another, and that every image can be read, each once.

        Raises
        ------
        DataError
            Folders of two parts have a class in common, or an image cannot be read.
        """
        self.check_disjoint()
        wholes = {id(whole): whole for source in self for whole in _wholes(source)}
        for whole in wholes.values():
            whole.check()


def open_sources(source: str, data: Any, *, image_size: Size, fold: str | None = None) -> Sources:
    """Open a run's data.

    Parameters
    ----------
    source : str
        As the configuration says it.
    data : optional
        A dataset, or a mapping with one a split; it takes the place of ``source``.
    image_size : int or (height, width)
        What images are cut to, in pixels.
    fold : str, optional
        ``2/4``: what is trained and validated on is divided anew, in four parts of which the second validates; there
        need be no split for validation then.

    Raises
    ------
    ConfigError
        The run had a data set from Python, and now there is none; or there is no such fold.
    DataError
        It cannot be used.
    """
    needed = [split for split in SPLITS if split != "validation" or fold is None]
    if isinstance(data, Mapping):
        if missing := [split for split in needed if split not in data]:
            raise DataError(f"data has no {missing[0]}: give a dataset for each of {', '.join(needed)}")
        parts = {split: _adapted(data[split], image_size) for split in SPLITS if split in data}
    else:
        whole = _once(source if data is None else data, image_size)
        there = [split for split in SPLITS if split in needed or has_split(whole, split)]
        parts = {split: open_dataset(whole, split, image_size=image_size) for split in there}
    return Sources(**parts) if fold is None else _crossed(parts, fold)


def validates(source: str) -> bool:
    """Whether data on disk, or under its name, say which classes validate, or are to be divided."""
    return has_split(_once(source, 64), "validation")


def _crossed(parts: Mapping[str, ImageSource], fold: str) -> Sources:
    """What is trained and, where there is any, validated on, divided anew; the test classes stay as they are."""
    part, folds = map(int, fold.split("/"))
    if part > folds or folds < 2:
        raise ConfigError(f"data.fold is {fold}, but must be a part of two or more, such as 2/4")
    _check_disjoint(parts)  # what two parts share would be one class twice
    given = ClassUnion([each for split, each in parts.items() if split != "test"])
    train, validation = fold_classes(given, folds)[part - 1]
    return Sources(train, validation, parts["test"])


def _check_disjoint(parts: Mapping[str, ImageSource]) -> None:
    for (first, one), (second, other) in itertools.combinations(parts.items(), 2):
        if common := sorted(set(one.class_names) & set(other.class_names)):
            named = f"{', '.join(common[:3])}{' …' if len(common) > 3 else ''}"
            message = f"{len(common)} classes are in {first} and in {second} ({named}): each belongs in one of them"
            if not any(isinstance(whole, Adapted) for whole in _wholes(one)):
                raise DataError(message)
            # Objects from Python may number the classes of each part from 0 on; only their maker knows.
            warnings.warn(message, NearfarWarning, stacklevel=4)


def open_test(source: Any, *, whole: bool, image_size: Size) -> ImageSource:
    """Open what is to be judged on; ``whole``: all classes of what is not divided."""
    opened = _once(source, image_size)
    divided = isinstance(opened, (str, os.PathLike)) or bool(getattr(opened, "parts", {}))
    if whole and not divided:
        found = _adapted(opened, image_size)
    else:
        found = open_dataset(opened, "test", image_size=image_size)
    found.check()
    return found


def loader_workers(wanted: int | None, source: ImageSource) -> int:
    """How many processes load images: as configured, or none for data in memory and one a core, at most 8, for files.

    Images and their augmentation do not depend on it.
    """
    if wanted is not None:
        return wanted
    return min(8, usable_cores()) if any(whole.reads_files for whole in _wholes(source)) else 0


def leave_interrupts_to_parent(_: int) -> None:
    """Of a worker process: Ctrl-C reaches it too, and the batch it is loading is still wanted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _once(source: Any, image_size: Size) -> Any:
    """A source that is divided later but read once."""
    if isinstance(source, str) and source.startswith(FROM_PYTHON):
        raise ConfigError(
            f"this run's data was an object of Python ({source.removeprefix(FROM_PYTHON)}): give it again as data="
        )
    if isinstance(source, str) and (source in NAMED or not Path(source).exists()):
        return source
    if isinstance(source, (str, os.PathLike)):
        divided = Path(source).is_dir() and split_folders(source)
        return source if divided else open_file(source, image_size=image_size)
    return _adapted(source, image_size)


def _adapted(dataset: Any, image_size: Size) -> ImageSource:
    return dataset if isinstance(dataset, ImageSource) else Adapted(dataset, image_size=image_size)


def _wholes(source: ImageSource) -> list[ImageSource]:
    """The sources that were opened for this one."""
    if isinstance(source, ClassSubset):
        return _wholes(source.source)
    if isinstance(source, ClassUnion):
        return [whole for each in source.sources for whole in _wholes(each)]
    return [source]
