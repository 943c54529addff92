"""Image files, given one by one or as folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nearfar.data.imagefolder import SUFFIXES, natural
from nearfar.errors import DataError
from nearfar.words import number_of


def list_images(given: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Every image of folders, however deep, and every file given, in natural order, each once.

    Raises
    ------
    DataError
        A path is not there, a file given is not of an image's kind, or there is no image at all.
    """
    found: dict[Path, None] = {}
    searched = 0
    for path in map(Path, given):
        if path.is_dir():
            searched += 1
            for folder, _, names in sorted(os.walk(path), key=lambda each: natural(each[0])):
                found |= {
                    Path(folder, name): None
                    for name in sorted(names, key=natural)
                    if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
                }
        elif not path.is_file():
            raise DataError(f"there is no file or folder {path}")
        elif path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path} is no image: the kinds are {' '.join(SUFFIXES)}")
        else:
            found[path] = None
    if not found:
        raise DataError(f"no images were found in {number_of(searched, 'folder')}: the kinds are {' '.join(SUFFIXES)}")
    return list(found)
