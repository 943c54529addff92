"""A trained network judged by pairs that somebody listed: verification sets as files, and tables of names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nearfar.data import TABLES, ClassSubset, ImageSource
from nearfar.data.faces import FacePairs, read_pairs
from nearfar.data.files import ImageFiles
from nearfar.data.pairlist import ListedImages, PairList, read_pair_list
from nearfar.data.size import Size, input_size
from nearfar.errors import ConfigError
from nearfar.evaluate import pair_similarities, verification_metrics
from nearfar.inference.features import Flip
from nearfar.models import EmbeddingModel
from nearfar.train.protocols import RESAMPLES, flat, tag
from nearfar.train.sources import loader_workers
from nearfar.train.table import embed
from nearfar.train.templates import by_template, firsts, told_templates

_FOLDS = 10
_FARS = (0.1, 0.01, 0.001)


def is_list(path: Path) -> bool:
    """Whether pairs are a table of names, by the ending; anything else is a set with its images in it."""
    return path.suffix.lower() in TABLES


def judged_pairs(
    path: Path,
    model: EmbeddingModel,
    *,
    flip: Flip,
    device: torch.device,
    workers: int | None = None,
    seed: int = 0,
    source: ImageSource | None = None,
) -> dict[str, Any]:
    """The figures of a verification set such as ``lfw.bin``, or of a table of pairs.

    A set is judged by ten consecutive folds and by both rules. Of a table, accuracy is by the folds that it tells, and
    where the source says who is who there are intervals by identity.

    Parameters
    ----------
    path : Path
        ``….bin``, or ``….csv`` or ``….parquet`` as :func:`~nearfar.data.pairlist.read_pair_list` reads it.
    model : EmbeddingModel
    flip : {"none", "sum", "concatenate"}
    device : torch.device
    workers : int, optional
        Processes that load images; unless given, as many as there are cores, at most 8.
    seed : int
        Of the bootstrap.
    source : ImageSource, optional
        What a table names: its templates, where it has those, or its images. Unless given, names are image files.

    Raises
    ------
    ConfigError
        The source has no names.
    DataError
        The file is neither, an image cannot be read, or a name is not in the source.
    InputError
        There are fewer pairs than folds.
    """
    if is_list(path):
        return _judged_list(read_pair_list(path), model, flip, device, workers, seed, source)
    pairs = read_pairs(path)
    images = cast(ImageSource, _PairImages(pairs, input_size(model.data_config)))
    x = embed(model, images, device=device, workers=workers or 0, flip=flip).double()
    places = torch.arange(len(x))
    similarities = pair_similarities(x, places[::2], places[1::2])
    found = flat(verification_metrics(similarities, pairs.same, fars=_FARS, folds=_FOLDS), f"pairs of {path.name}")
    return found | {"protocol": tag(model, flip, found["protocol"])}


def _judged_list(
    pairs: PairList,
    model: EmbeddingModel,
    flip: Flip,
    device: torch.device,
    workers: int | None,
    seed: int,
    source: ImageSource | None,
) -> dict[str, Any]:
    images = source or ListedImages(pairs, image_size=input_size(model.data_config))
    images.check()
    # What can be wrong with names is found before anything is embedded.
    places = torch.arange(len(pairs.names)) if source is None else _places(pairs, source)
    x = embed(model, images, device=device, workers=loader_workers(workers, images), flip=flip)
    made = told_templates(images)
    x, judged = by_template(x, images)
    first, second = places[pairs.first], places[pairs.second]
    identities = None if source is None else torch.stack([judged.labels[first], judged.labels[second]], 1)
    similarities = pair_similarities(x.double(), first, second)
    measured = verification_metrics(
        similarities, pairs.same, identities=identities, folds=pairs.folds, resamples=RESAMPLES, seed=seed
    )
    found = flat(measured, f"{len(pairs)} pairs of {pairs.path.name}")
    return found | {"protocol": tag(model, flip, *made, found["protocol"])}


def _places(pairs: PairList, source: ImageSource) -> Tensor:
    """The rows that the names have once templates are made, whose labels are those that the pairs tell."""
    if source.templates is None:
        places = pairs.places(_files(pairs, source), "images of the data", files=True)
        pairs.check_labels(source.labels[places])
        return places
    numbers, of = torch.unique(source.templates, return_inverse=True)
    places = pairs.places([source.template_names[number] for number in numbers.tolist()], "templates of the data")
    pairs.check_labels(source.labels[firsts(of, len(numbers))][places])
    return places


def _files(pairs: PairList, source: ImageSource) -> Sequence[Path]:
    """The file of each image."""
    if isinstance(source, ImageFiles):
        return source.paths
    if isinstance(source, ClassSubset):
        whole = _files(pairs, source.source)
        return [whole[index] for index in source.indices.tolist()]
    raise ConfigError(
        f"{pairs.path} names images, and those of the data are no files: give a folder or a table as data"
    )


class _PairImages(Dataset[tuple[Tensor, int]]):
    """The images of a verification set, each with its place."""

    def __init__(self, pairs: FacePairs, size: Size) -> None:
        self.pairs, self.size = pairs, size

    def __len__(self) -> int:
        return len(self.pairs.encoded)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.pairs.image(index, self.size), index
