"""Put files into a folder, all of them or none."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["check_folder", "write"]


def check_folder(folder: Path) -> Path:
    """Return ``folder``, or raise :class:`FileExistsError` where there is something in its place already."""
    if folder.is_dir():
        # What `git init` or a clone of an empty repository leaves is no work of anybody's.
        taken = any(entry.name != ".git" for entry in folder.iterdir())
        what = "the folder is not empty; name another with --output"
    else:
        taken = folder.exists() or folder.is_symlink()
        what = "it is a file; name a folder with --output"
    if taken:
        raise FileExistsError(errno.EEXIST, what, str(folder))
    return folder


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write files into a folder that is empty or does not exist.

    They are written next to where they belong and moved there when they are complete: what interrupts leaves nothing.

    Parameters
    ----------
    files
        Path from the folder, with ``/``, → text.
    folder
        Made with its parents where it is not there.

    Raises
    ------
    FileExistsError
        There is something in its place already; nothing is written.
    """
    check_folder(folder)
    # In a folder that is there already, not beside it: it may be another file system, or somebody's working directory.
    beside = folder if folder.is_dir() else folder.absolute().parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".nearfar-") as temporary:
        # A folder of its own in there, which has the permissions that folders usually get.
        draft = Path(temporary) / "plugin"
        for path, text in files.items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        if beside is folder:
            _move_in(draft, folder)
        else:
            draft.rename(folder)


def _move_in(draft: Path, folder: Path) -> None:
    """Move what ``draft`` holds into ``folder``; back again where that fails."""
    moved: list[Path] = []
    try:
        for entry in sorted(draft.iterdir()):
            target = folder / entry.name
            if target.exists():
                raise FileExistsError(errno.EEXIST, "the folder is not empty; name another with --output", str(folder))
            entry.rename(target)
            moved.append(target)
    except BaseException:
        for target in moved:
            target.rename(draft / target.name)
        raise
