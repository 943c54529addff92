"""A folder that keeps what of a simulation is done, so that one that was interrupted goes on where it stopped."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nearfar.errors import CheckpointError, ConfigError
from nearfar.files import replaced, write_text
from nearfar_iou.simulation.cases import CASES, PER_POINT, RATES
from nearfar_iou.simulation.descent import Descended

__all__ = ["Record", "Result"]

SETTINGS = "settings.json"
#: The version of what the files hold.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a loss made of all points in one mode, as if there had been the paper's number of them.

    Attributes
    ----------
    curve
        201 sums of errors over 1,715,000 cases, at first and after each step.
    surface
        For each point the sum of the final errors of its cases.
    near
        The share of cases that end within 0.01.
    """

    mode: str
    loss: str
    curve: list[float]
    surface: list[float]
    near: float


class Record:
    """The folder of a simulation of ``points`` points from a ``seed``.

    Raises
    ------
    ConfigError
        The folder holds another simulation, or something else.
    """

    def __init__(self, folder: Path, *, points: int, seed: int) -> None:
        self.folder = folder
        settings = {"format": FORMAT, "points": points, "seed": seed}
        path = folder / SETTINGS
        if path.exists():
            found = _settings(path)
            if differing := [name for name in settings if found.get(name) != settings[name]]:
                said = ", ".join(f"{name} {found.get(name)}, not {settings[name]}" for name in differing)
                raise ConfigError(f"{folder} holds another simulation ({said}); choose another folder with -o")
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is there already and holds no simulation; choose another folder with -o")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(settings))
        self.points = points

    def done(self, mode: str, loss: str) -> list[Descended]:
        """The blocks of points that are done, in order.

        Raises
        ------
        CheckpointError
            The file of them is damaged.
        """
        path = self._path(mode, loss)
        if not path.exists():
            return []
        try:
            # Opened here: given a path, numpy leaves a damaged file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                curves, surface, sizes, near = (data[name] for name in ("curves", "surface", "sizes", "near"))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); remove it, and it is computed again") from error
        each = np.split(surface, np.cumsum(sizes)[:-1])
        return [
            Descended(torch.from_numpy(curve), torch.from_numpy(part), int(count))
            for curve, part, count in zip(curves, each, near, strict=True)
        ]

    def keep(self, mode: str, loss: str, blocks: list[Descended]) -> None:
        """Keep these blocks in place of what was kept; whole, or not at all."""
        with replaced(self._path(mode, loss)) as file:
            np.savez(
                file,
                curves=np.stack([block.curve.numpy() for block in blocks]),
                surface=np.concatenate([block.surface.numpy() for block in blocks]),
                sizes=np.array([len(block.surface) for block in blocks]),
                near=np.array([block.near for block in blocks]),
            )

    def result(self, mode: str, loss: str) -> Result:
        """What all blocks come to; all points are done."""
        blocks = self.done(mode, loss)
        surface = torch.cat([block.surface for block in blocks])
        scale = CASES / (self.points * PER_POINT)
        curve = scale * torch.stack([block.curve for block in blocks]).sum(0)
        assert len(surface) == self.points
        assert len(curve) == len(RATES) + 1
        near = sum(block.near for block in blocks) / (self.points * PER_POINT)
        return Result(mode, loss, curve.tolist(), surface.tolist(), near)

    def _path(self, mode: str, loss: str) -> Path:
        return self.folder / f"{mode}-{loss}.npz"


def _settings(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); choose another folder with -o") from error
    return found if isinstance(found, dict) else {}
