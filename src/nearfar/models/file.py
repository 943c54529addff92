"""A model in one file: ``model.safetensors``, with the configuration that rebuilds it in the metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch

from nearfar.errors import ArgumentError, CheckpointError, UnknownPart
from nearfar.files import replaced
from nearfar.models.model import EmbeddingModel, create_model
from nearfar.models.weights import METADATA_KEY, check_tensors, read_metadata, read_tensors


def save_model(model: EmbeddingModel, path: str | os.PathLike[str]) -> None:
    """Write a model's configuration and weights; an existing file is replaced at once or not at all.

    Parameters
    ----------
    model : EmbeddingModel
    path : path
        Of a file whose name ends in ``.safetensors``, in a folder that exists.

    Raises
    ------
    CheckpointError
        The file cannot be written.
    """
    path = _checked_path(path)
    # Copies, because safetensors refuses two names for one piece of memory.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    metadata = {METADATA_KEY: json.dumps({"config": model.config, "timm": timm.__version__})}
    try:
        # Not save_file, whose files nobody but their owner may read, whatever the umask.
        with replaced(path) as file:
            file.write(safetensors.torch.save(tensors, metadata=metadata))
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def load_model(path: str | os.PathLike[str]) -> EmbeddingModel:
    """Rebuild a model that :func:`save_model` wrote: bit-equal weights, on the CPU, in evaluation mode.

    torch's random generator is left as it was.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, of another origin, or describes a model that this timm cannot build.
    """
    path = _checked_path(path)
    tensors = read_tensors(path)
    try:
        saved: dict[str, Any] = json.loads(read_metadata(path)[METADATA_KEY])
        config, version = saved["config"], saved["timm"]
    except (KeyError, ValueError, TypeError):
        raise CheckpointError(
            f"{path} was not written by nearfar.models.save_model: to take a backbone's weights from it, use "
            f"create_model(name, embedding_size, checkpoint=…)"
        ) from None
    try:
        with torch.random.fork_rng(devices=[]):
            model = create_model(**config)
    except (ArgumentError, UnknownPart, TypeError) as error:
        raise CheckpointError(
            f"{path} was written with timm {version} and cannot be rebuilt with timm {timm.__version__}: {error}"
        ) from error
    check_tensors(tensors, model.state_dict(), path=path, model=config["name"])
    # Assigned, so that the model keeps the dtype it was saved in; cloned, because where in memory a file's tensors
    # happen to start decides which kernels run on them, and with these the last bit of what they compute.
    model.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    return model.eval()


def _checked_path(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"a model's file ends in .safetensors, and {path} does not")
    return path
