"""Images that are asked about: embedded as what they are compared with was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F

from nearfar.data.image import cut, read
from nearfar.data.size import input_size
from nearfar.errors import ConfigError
from nearfar.inference.calibration import Calibration
from nearfar.inference.embedding import model_digest
from nearfar.inference.features import Flip, features
from nearfar.inference.store import Embeddings
from nearfar.models import EmbeddingModel

#: Images embedded at once.
_BATCH = 64


def of_images(model: EmbeddingModel, paths: Sequence[Path], gallery: Embeddings, *, device: torch.device) -> Embeddings:
    """Embed images as a gallery was.

    Raises
    ------
    ConfigError
        The gallery is of another model.
    DataError
        An image cannot be read.
    """
    flip = cast(Flip, gallery.about.get("flip", "none"))
    found = Embeddings(
        _vectors(model, paths, flip, device),
        tuple(map(str, paths)),
        {"weights": model_digest(model), "flip": flip},
    )
    same_space(gallery, found, "the embeddings and --run")
    return found


def same_space(one: Embeddings, other: Embeddings, what: str) -> None:
    """Raise a ConfigError where embeddings cannot be compared."""
    for name in ("weights", "flip"):
        first, second = one.about.get(name), other.about.get(name)
        if first is not None and second is not None and first != second:
            raise ConfigError(f"{what} are of different models or settings: {name} {first} and {second}")
    if one.vectors.shape[1] != other.vectors.shape[1]:
        raise ConfigError(f"{what} have {one.vectors.shape[1]} and {other.vectors.shape[1]} numbers an embedding")


def judge(
    model: EmbeddingModel, first: Path, second: Path, threshold: str, *, device: torch.device
) -> tuple[float, float, str]:
    """The cosine of two images, the threshold, and what there is to say about it.

    Parameters
    ----------
    model : EmbeddingModel
    first, second : Path
        Images.
    threshold : str
        A number, or the path of a calibration.
    device : torch.device
        The model's.

    Raises
    ------
    ConfigError
        The threshold is neither, not in [−1, 1], or was calibrated for another model.
    DataError
        An image cannot be read.
    """
    flip: Flip = "none"
    note = ""
    try:
        limit = float(threshold)
    except ValueError:
        if not Path(threshold).is_file():
            found = f"the threshold {threshold!r} is neither a number nor a file of `nearfar calibrate`"
            raise ConfigError(found) from None
        kept = Calibration.read(threshold)
        digest = model_digest(model)
        if kept.model and kept.model != digest:
            raise ConfigError(f"{threshold} was made for another model ({kept.model}; this one is {digest})") from None
        limit, flip = kept.threshold, cast(Flip, kept.flip)
        note = f", the threshold for a false-accept rate of {kept.wanted:g}"
    if not -1 <= limit <= 1:
        raise ConfigError(f"a threshold on cosines lies in [-1, 1]; got {limit}")
    one, other = _vectors(model, (first, second), flip, device).double()
    return float(F.cosine_similarity(one, other, dim=0)), limit, note


def _vectors(model: EmbeddingModel, paths: Sequence[Path], flip: Flip, device: torch.device) -> torch.Tensor:
    size = input_size(model.data_config)
    parts = []
    for start in range(0, len(paths), _BATCH):
        images = torch.stack([cut(read(path, size), size) for path in paths[start : start + _BATCH]])
        parts.append(features(model, images.to(device), flip=flip))
    return torch.cat(parts)
