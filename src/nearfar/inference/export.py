"""A trained model in the formats that other programs run: safetensors, torch.export and ONNX."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ConfigError, DataError, MissingExtra
from nearfar.files import require_folder, require_new
from nearfar.models import EmbeddingModel, save_model

#: Ending → what it is.
FORMATS = {".safetensors": "weights and configuration", ".pt2": "a program for torch.export.load", ".onnx": "ONNX"}


class _FromPixels(nn.Module):
    """The model behind its own normalisation: pixels in, embeddings out."""

    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(model.data_config["mean"]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(model.data_config["std"]).view(1, -1, 1, 1))

    mean: Tensor
    std: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.model((pixels / 255 - self.mean) / self.std)
        return found


def export(model: EmbeddingModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a model for others to run.

    ``….pt2`` and ``….onnx`` take pixels, (n, 3, S, S) float32 from 0 to 255 of any batch size, as ``pixels``, scale
    them as the model wants, and give ``embeddings``, (n, d). ``….safetensors`` is what
    :func:`nearfar.models.load_model` reads.

    Parameters
    ----------
    model : EmbeddingModel
        On the CPU.
    path : path
        Its ending tells the format.
    overwrite : bool
        Whether the file may be there already.

    Raises
    ------
    ConfigError
        The ending is none of these, the file is there already, or its folder is not.
    DataError
        The model cannot be written so.
    MissingExtra
        onnx and onnxscript are missing, and the ending is ``.onnx``.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        known = ", ".join(f"{ending} ({what})" for ending, what in FORMATS.items())
        raise ConfigError(f"{path} does not tell a format by its ending: {known}")
    require_new(path, overwrite=overwrite)
    require_folder(path)
    if path.suffix == ".safetensors":
        save_model(model, path)
        return
    was_training = model.training
    program = _FromPixels(model.eval())
    # Two images: a batch of one would be taken for the only size there is.
    pixels = torch.zeros(2, *model.data_config["input_size"])
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporters, about themselves
            (_write_program if path.suffix == ".pt2" else _write_onnx)(program, pixels, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        model.train(was_training)


def _write_program(program: nn.Module, pixels: Tensor, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(program, (pixels,), dynamic_shapes={"pixels": {0: batch}})
    torch.export.save(exported, path)


def _write_onnx(program: nn.Module, pixels: Tensor, path: Path) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtra("writing ONNX", extra="onnx") from error
    options: dict[str, Any] = {"dynamic_shapes": {"pixels": {0: torch.export.Dim("batch", min=1)}}}
    torch.onnx.export(
        program,
        (pixels,),
        str(path),
        input_names=["pixels"],
        output_names=["embeddings"],
        dynamo=True,
        verbose=False,
        external_data=False,
        **options,
    )
