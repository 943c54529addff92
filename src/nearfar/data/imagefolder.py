"""A folder of images with one sub-folder a class: root/class/file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from nearfar.data.files import ImageFiles
from nearfar.data.size import Size
from nearfar.errors import DataError

#: The endings, in lower case, of the files that are taken for images; other files are passed over.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

#: What a split may be called, and what it is.
SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_LAYOUT = "give a folder with one sub-folder of images for each class"


class ImageFolder(ImageFiles):
    """The images of a folder with one sub-folder a class.

    Images of any size are scaled and their middle is cut out when they are asked for; classes and files are in natural
    order (class2 before class10). Hidden files and files of other kinds are passed over.

    Parameters
    ----------
    root : path
        The folder.
    image_size : int or (height, width)
        Of the images given, in pixels.

    Attributes
    ----------
    root : Path
        The folder.
    paths : tuple of Path
        The file of each image.
    labels, class_names
        As of every :class:`~nearfar.data.source.ImageSource`.

    Raises
    ------
    DataError
        The folder is missing, has no class folders or no images, or a class has fewer than two.
    """

    def __init__(self, root: str | os.PathLike[str], *, image_size: Size = 64) -> None:
        self.root = Path(root)
        self.image_size = image_size
        folders = _class_folders(self.root)
        files = [_images(folder) for folder in folders]
        _check_counts(self.root, folders, files)
        self.class_names = tuple(folder.name for folder in folders)
        self.paths = tuple(path for group in files for path in group)
        counts = torch.tensor([len(group) for group in files])
        self.labels = torch.arange(len(folders)).repeat_interleave(counts)


def split_folders(root: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the folders of the splits, where a folder is divided into train, validation (or val) and test.

    It counts as divided when every sub-folder has one of these names and one is train or test; otherwise the result
    is empty.

    Raises
    ------
    DataError
        The folder is missing, or has both val and validation.
    """
    folders = {folder.name: folder for folder in _sub_folders(Path(root))}
    if not folders.keys() <= SPLIT_NAMES.keys() or not folders.keys() & {"train", "test"}:
        return {}
    if {"val", "validation"} <= folders.keys():
        raise DataError(f"{root} has both a folder val and a folder validation: remove or rename one of them")
    return {SPLIT_NAMES[name]: folder for name, folder in folders.items()}


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort by this key to have class2 before class10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _sub_folders(root: Path) -> list[Path]:
    if not root.exists():
        raise DataError(f"there is no folder {root}: {_LAYOUT}")
    if not root.is_dir():
        raise DataError(f"{root} is a file: {_LAYOUT}")
    return [path for path in _entries(root) if path.is_dir()]


def _class_folders(root: Path) -> list[Path]:
    folders = _sub_folders(root)
    if not folders:
        loose = len(_images(root))
        found = f"but {_count(loose, 'image')} beside each other" if loose else "and no images either"
        raise DataError(f"the folder {root} has no class folders, {found}: {_LAYOUT}")
    return folders


def _entries(folder: Path) -> list[Path]:
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot list the folder {folder}: {error.strerror}; make it readable") from error
    return sorted(entries, key=lambda path: natural(path.name))


def _images(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix.lower() in SUFFIXES and path.is_file()]


def _check_counts(root: Path, folders: Sequence[Path], files: Sequence[Sequence[Path]]) -> None:
    if not any(files):
        raise DataError(
            f"no class folder of {root} has an image of a supported kind: {_count(len(folders), 'folder')} searched "
            f"for {' '.join(SUFFIXES)}"
        )
    for wanted, found in ((0, "no image"), (1, "only one image")):
        names = [repr(folder.name) for folder, group in zip(folders, files, strict=True) if len(group) == wanted]
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            subject = (
                f"the class {names[0]} has" if len(names) == 1 else f"the classes {', '.join(names[:5])}{more} have"
            )
            raise DataError(
                f"{subject} {found} in {root}: pairs and retrieval need two or more of each class; "
                "add images or remove the class folder"
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
