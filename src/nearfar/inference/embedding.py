"""Embed many files, in parts, so that a run that dies goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nearfar.data.image import cut, read
from nearfar.data.size import input_size
from nearfar.errors import ConfigError, DataError
from nearfar.files import require_new, write_text
from nearfar.inference.features import Flip, features
from nearfar.inference.store import Embeddings, check_store, read_embeddings, write_embeddings, write_parts
from nearfar.models import EmbeddingModel

#: Images that are kept together: what is lost at most.
PART = 1024


def embed_files(
    model: EmbeddingModel,
    paths: Sequence[Path],
    output: str | os.PathLike[str],
    *,
    flip: Flip = "none",
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
    name: str = "",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Embed image files into one file, resumable; :func:`~nearfar.inference.read_embeddings` reads it.

    Parts lie in the folder ``OUTPUT.parts`` until all are there; called again with the same model and images, it
    goes on with what is missing. No more than a part is in memory.

    Parameters
    ----------
    model : EmbeddingModel
        Its mode and its device are afterwards what they were.
    paths : sequence of Path
        As :func:`~nearfar.inference.list_images` gives them.
    output : path
        ``….parquet`` or ``….safetensors``.
    flip : {"none", "sum", "concatenate"}
        As in :func:`~nearfar.inference.features`.
    batch_size, workers : int
        Images at once; processes that load them.
    device : torch.device or str
        Where the model computes.
    name : str
        What the model is called in the file.
    overwrite : bool
        Whether ``output`` may be there already.
    progress : callable, optional
        Called with the images done and all of them.

    Raises
    ------
    ConfigError
        ``output`` is there already, the parts beside it are of another model or other images, or the model takes no RGB
        images.
    DataError
        An image cannot be read, or a file cannot be written.
    """
    output = check_store(output)
    require_new(output, overwrite=overwrite)
    size = input_size(model.data_config)
    about = {"model": name, "weights": model_digest(model), "flip": flip, "embedding_size": model.embedding_size}
    folder = output.with_name(f"{output.name}.parts")
    _claim(folder, about, paths)
    parts: list[Path] = []
    with _moved(model, device):
        for start in range(0, len(paths), PART):
            file = folder / f"{start // PART:06}.safetensors"
            if not file.exists():
                wanted = paths[start : start + PART]
                loader: DataLoader[Tensor] = DataLoader(_Files(wanted, size), batch_size, num_workers=workers)
                vectors = []
                for images in loader:
                    vectors.append(features(model, images.to(device), flip=flip))
                    if progress is not None:
                        progress(start + sum(map(len, vectors)), len(paths))
                write_embeddings(Embeddings(torch.cat(vectors), tuple(map(str, wanted)), about), file)
            parts.append(file)
            if progress is not None:
                progress(min(start + PART, len(paths)), len(paths))
    write_parts((read_embeddings(part).vectors for part in parts), list(map(str, paths)), about, output)
    shutil.rmtree(folder)


@contextlib.contextmanager
def _moved(model: EmbeddingModel, device: torch.device | str) -> Iterator[None]:
    """Have a model on another device for a while."""
    before = next(model.parameters()).device
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


class _Files(Dataset[Tensor]):
    """The images of files, each its middle."""

    def __init__(self, paths: Sequence[Path], size: tuple[int, int]) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return cut(read(self.paths[index], self.size), self.size)


def _claim(folder: Path, about: dict[str, object], paths: Sequence[Path]) -> None:
    """Make the folder of the parts, or make sure that it is of the same model and images."""
    listed = hashlib.sha256("\n".join(map(str, paths)).encode()).hexdigest()
    wanted = json.dumps({"about": about, "images": len(paths), "paths": listed, "part": PART})
    manifest = folder / "manifest.json"
    try:
        if manifest.exists():
            if manifest.read_text(encoding="utf-8") != wanted:
                raise ConfigError(
                    f"{folder} has parts that were made with another model, other settings or other images: remove it, "
                    "or give another output"
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_text(manifest, wanted)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error


def model_digest(model: EmbeddingModel) -> str:
    """What tells one model from another: its weights, what it is made of, and what images are made into for it."""
    about = {name: model.data_config[name] for name in ("input_size", "mean", "std")}
    digest = hashlib.sha256(json.dumps([model.config, about], sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
