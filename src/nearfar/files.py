"""Files that are replaced at once or not at all, only where that is asked for, and in folders that are there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nearfar.errors import ConfigError

__all__ = ["replaced", "require_folder", "require_new", "write_text"]


def require_new(path: Path, *, overwrite: bool) -> None:
    """Whether a file may be written, with an option ``--overwrite`` or an argument ``overwrite``.

    Raises
    ------
    ConfigError
        It is there already, and is not to be overwritten.
    """
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is there already: give another name, or --overwrite (overwrite=True in Python)")


def require_folder(path: Path) -> None:
    """Whether the folder is there that a file is to be written in; to be asked before anything is computed for it.

    Raises
    ------
    ConfigError
        It is not.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent} to write {path.name} in: make it first")


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing bytes; it takes the place of ``path`` when all of it is on the disk.

    Where the block raises, ``path`` is as it was, and nothing is left beside it.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        # Of a path that leads through a file, unlinking fails too, and says less than opening did.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, at once or not at all."""
    with replaced(path) as file:
        file.write(text.encode())


def _sync_folder(path: Path) -> None:
    """Put a renaming on the disk, where folders can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
