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
from collections.abc import Mapping
from typing import Any

from nearfar.data.augment import Augment
from nearfar.data.emoji import SPLITS, Emoji
from nearfar.data.imagefolder import ImageFolder, split_folders
from nearfar.data.prepare import Normalise, Prepare
from nearfar.data.sampling import Draw, HardSampler, Keyed, PKSampler
from nearfar.data.source import Adapted, ClassSubset, ImageSource
from nearfar.data.split import FRACTIONS, split_classes
from nearfar.errors import DataError

__all__ = [
    "FRACTIONS",
    "SPLITS",
    "Adapted",
    "Augment",
    "ClassSubset",
    "Draw",
    "Emoji",
    "HardSampler",
    "ImageFolder",
    "ImageSource",
    "Keyed",
    "Normalise",
    "PKSampler",
    "Prepare",
    "open_dataset",
    "split_classes",
]


def open_dataset(
    source: Any,
    split: str = "train",
    *,
    image_size: int = 64,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> ImageSource:
    """Return one split of a data set.

    Parameters
    ----------
    source : str, path or Dataset
        ``"emoji"`` (a folder of that name is ``"./emoji"``); a folder root/class/file, or root/split/class/file with
        the splits train, validation (or val) and test; or any dataset of ``(image, label)``.
    split : {"train", "validation", "test"}
        What is not divided already is divided by classes, see :func:`~nearfar.data.split.split_classes`.
    image_size : int
        The side that images of folders and datasets are cut to, in pixels. Embedded images stay at theirs, and
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
    if isinstance(source, str) and source == "emoji":
        return Emoji(split)  # type: ignore[arg-type]  # checked above
    if isinstance(source, (str, os.PathLike)):
        if isinstance(source, str) and not os.path.exists(source):
            raise DataError(
                f"there is no data set {source!r}: it is neither a folder nor the name of an embedded one (emoji)"
            )
        folders = split_folders(source)
        if folders:
            if split not in folders:
                raise DataError(
                    f"{os.fspath(source)} is divided into {', '.join(folders)} and has no {split}: add that folder, "
                    "or put all classes into one folder to have them divided"
                )
            return ImageFolder(folders[split], image_size=image_size)
        whole: ImageSource = ImageFolder(source, image_size=image_size)
    else:
        whole = source if isinstance(source, ImageSource) else Adapted(source, image_size=image_size)
    return split_classes(whole, fractions, seed)[split]
