"""The run folder: what is in it, and where it is."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from nearfar.errors import CheckpointError, ConfigError
from nearfar.files import write_text

RUNS = Path("runs")
_LATEST = "latest"


class RunFolder:
    """The paths of a run.

    ::

        config.yaml            everything the run depends on, resolved
        recipe.yaml            the criterion, with the versions of the plugins that made it
        model.safetensors      the best weights so far, with what rebuilds the model
        classes.safetensors    the class vectors, proxies and centres beside them, with the names of the classes
        checkpoint.pt          the last step that can be gone on from: model, criterion, optimiser
        metrics.json           the table, the validation, the times
        hardest-N.safetensors  what was hard of the training set at step N, where a run mines offline
        logs/                  train.csv, validation.csv, and tensorboard/
        .lock                  held by the process that trains here
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.recipe = self.path / "recipe.yaml"
        self.model = self.path / "model.safetensors"
        self.classes = self.path / "classes.safetensors"
        self.checkpoint = self.path / "checkpoint.pt"
        self.metrics = self.path / "metrics.json"
        self.logs = self.path / "logs"
        self._lock = self.path / ".lock"

    def __str__(self) -> str:
        return str(self.path)

    def search(self, step: int) -> Path:
        """Where it is kept what was hard at a step."""
        return self.path / f"hardest-{step}.safetensors"

    def searches(self) -> dict[int, Path]:
        """What is kept of that, by step."""
        return {int(path.stem.partition("-")[2]): path for path in self.path.glob("hardest-*.safetensors")}

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None, criterion: str) -> RunFolder:
        """Make the folder of a new run; without a path ``runs/<date>-<time>-<criterion>``.

        Raises
        ------
        ConfigError
            It holds a run already, another process is training in it, or it cannot be written.
        """
        folder = cls(RUNS if path is None else path)
        try:
            if path is None:
                folder = cls(_made(criterion))
            else:
                folder._claim()
            with folder.held():
                folder.logs.mkdir(exist_ok=True)
                write_text(folder.path / ".writable", "")
                (folder.path / ".writable").unlink()
                # Of a run that was killed before its first checkpoint: hard for another model.
                for left in folder.searches().values():
                    left.unlink()
        except OSError as error:
            raise ConfigError(
                f"the run folder {folder} cannot be written: {error.strerror}; choose another with --output"
            ) from None
        return folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have no other process train here meanwhile; where this one is killed, the system lets go of the folder.

        Raises
        ------
        ConfigError
            Another process is training here.
        """
        lock = FileLock(self._lock, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise ConfigError(
                f"another process is training in {self}, and two would overwrite each other's checkpoints: wait for "
                "its end, or stop it"
            ) from None
        except (OSError, NotImplementedError):
            pass  # a disk without locks; or one that cannot be written, which whoever writes will say
        try:
            yield
        finally:
            lock.release()

    def _claim(self) -> None:
        """Make the folder, or see that what is there is left of a run that came to nothing."""
        for holds in (self.checkpoint, self.model, self.metrics):
            if os.path.lexists(holds):
                raise ConfigError(
                    f"{self} holds a run already, which is not overwritten: go on with it by --resume {self}, "
                    "or choose another folder with --output"
                )
        if not self.path.is_dir():
            self.path.mkdir(parents=True)  # fails where another run began here since
        elif any(self.path.iterdir()) and not self.config.is_file():
            raise ConfigError(f"{self} holds other files than a run's: choose another folder with --output")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Find an existing run; ``latest`` beside other runs stands for the last one started.

        Raises
        ------
        CheckpointError
            There is no run.
        """
        given = Path(path)
        if given.is_file() and given.name == _LATEST:  # where links cannot be made
            given = given.parent / given.read_text(encoding="utf-8").strip()
        folder = cls(given.parent / os.readlink(given) if given.is_symlink() else given)
        if not folder.path.is_dir():
            raise CheckpointError(f"there is no run folder {path}")
        if not folder.config.is_file():
            raise CheckpointError(f"{path} is not the folder of a run: it has no {folder.config.name}")
        return folder

    def point_latest(self) -> None:
        """Have ``runs/latest`` point here; only runs in a folder named ``runs`` have one."""
        if self.path.parent.name != RUNS.name:
            return
        latest = self.path.parent / _LATEST
        temporary = self.path.parent / f".{_LATEST}.{os.getpid()}.tmp"
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
            try:
                temporary.symlink_to(self.path.name, target_is_directory=True)
            except (OSError, NotImplementedError):
                temporary.write_text(self.path.name, encoding="utf-8")
            temporary.replace(latest)


def _made(criterion: str) -> Path:
    """A new folder among the runs; of several that begin in one second each has its own."""
    names = re.findall(r"[a-z_]\w*", criterion, flags=re.IGNORECASE)
    stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{names[0] if names else 'run'}"
    RUNS.mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = RUNS / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError
