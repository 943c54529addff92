"""The model of a run, as commands are given it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearfar.errors import CheckpointError

if TYPE_CHECKING:
    from nearfar.models import EmbeddingModel

#: What the commands that embed have in common.
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute."
)


def load(run: Path, device: str) -> tuple[EmbeddingModel, Any]:
    """The best weights of a run folder, or a model file, and the device it is to be moved to."""
    import torch

    from nearfar.errors import ConfigError
    from nearfar.models import load_model

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no GPU that torch can use: give --device cpu")
    where = "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
    file = run / "model.safetensors" if run.is_dir() else run
    if not file.is_file():
        raise CheckpointError(f"{run} is neither the folder of a run that has a model nor the file of one")
    return load_model(file).to(where), torch.device(where)
