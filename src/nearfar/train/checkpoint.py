"""The resumable checkpoint: one file of tensors and plain data, written at once or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nearfar.data import ClassSubset, ImageSource
from nearfar.errors import CheckpointError
from nearfar.files import replaced

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after some of its steps.

    The random state is not here: whatever is random is a function of the seed and the step. Nor is the schedule's.

    Attributes
    ----------
    step
        The number of steps done.
    steps
        The number of steps of the run.
    seconds
        How long they took.
    model, criterion, optimizer
        Their ``state_dict``.
    scaler
        Of float16 training; otherwise empty.
    best
        ``score``, ``step`` and ``metrics`` of the best validation; empty before the first.
    losses
        Of the steps of the epoch that is not done yet.
    data
        Of :func:`data_digest`.
    """

    step: int
    steps: int
    seconds: float
    model: Mapping[str, Any]
    criterion: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]
    best: Mapping[str, Any]
    losses: Sequence[float]
    data: str

    def write(self, path: Path) -> None:
        """Replace the file at ``path``.

        Raises
        ------
        CheckpointError
            The disk is full, or the folder is gone.
        """
        try:
            with replaced(path) as file:
                torch.save({"format": _FORMAT, **{name: getattr(self, name) for name in self.__slots__}}, file)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint {path} cannot be written: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a file; nothing in it is executed.

        Raises
        ------
        CheckpointError
            It is missing, damaged, or not a checkpoint of a run.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise CheckpointError(
                f"{path.parent} has no {path.name} to go on from: it stopped before the first one was written; "
                "start anew with --output"
            ) from None
        except Exception as error:  # on bytes that are no checkpoint torch's reader raises whatever it stumbles over
            raise CheckpointError(f"{path} is damaged, or no checkpoint of a run") from error
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise CheckpointError(f"{path} is no checkpoint of a run, or of another version of nearfar")
        try:
            return cls(**content)
        except TypeError as error:
            raise CheckpointError(f"{path} is not a whole checkpoint of a run") from error


def restore(module: nn.Module, state: Mapping[str, Any], *, what: str, path: Path) -> None:
    """Load a state into a module, all of it.

    Raises
    ------
    CheckpointError
        It is that of another module.
    """
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, KeyError) as error:
        reason = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise CheckpointError(f"{path} is of another {what} than the configuration describes: {reason}") from error


def data_digest(source: ImageSource) -> str:
    """A fingerprint of the classes, the labels and some of the images of a data set, to notice a changed one."""
    digest = hashlib.sha256("\0".join(source.class_names).encode())
    digest.update(source.labels.numpy().tobytes())
    if isinstance(source, ClassSubset):
        digest.update(source.indices.numpy().tobytes())
    for index in range(0, len(source), max(len(source) // 8, 1)):
        digest.update(source.image(index).numpy().tobytes())
    return digest.hexdigest()
