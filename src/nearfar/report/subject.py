"""All that a page shows of one run, gathered from its folder and from the images it is judged on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nearfar.data import ImageSource
from nearfar.data.size import input_size
from nearfar.errors import CheckpointError, NearfarError
from nearfar.models import load_model
from nearfar.report.curves import Curves, read_curves
from nearfar.report.figures import Figure, Pairs, pair_figures, retrieval_figures
from nearfar.report.recipes import RecipeFacts, read_recipe
from nearfar.report.scenes import Map, Query, Scenes, ShownPair
from nearfar.train.config import Config, saved_config
from nearfar.train.evaluation import judged_source
from nearfar.train.folder import RunFolder
from nearfar.train.sources import loader_workers
from nearfar.train.table import embed, told_queries

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Judged:
    """What a run is judged on.

    Attributes
    ----------
    source
        What the data is called.
    images, classes
        How many.
    unseen
        Whether they are the run's own test classes.
    asked
        What is searched in what.
    digest
        Equal for the same classes and labels.
    """

    source: str
    images: int
    classes: int
    unseen: bool
    asked: str
    digest: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the images that a run is judged on show; nothing where they or the model cannot be read."""

    judged: Judged | None = None
    retrieval: tuple[Figure, ...] = ()
    pairs: Pairs | None = None
    queries: tuple[Query, ...] = ()
    positives: tuple[ShownPair, ...] = ()
    negatives: tuple[ShownPair, ...] = ()
    map: Map | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """A run; what is missing is None or empty, and ``notes`` says why, a sentence each."""

    name: str
    config: str
    metrics: Mapping[str, Any]
    training: Curves | None
    validation: Curves | None
    recipe: RecipeFacts | None
    seen: Seen
    notes: tuple[str, ...]


class _Noting:
    """Tries, and notes what it is that failed."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def attempt(self, make: Callable[[], T], instead: D, without: str) -> T | D:
        try:
            return make()
        except NearfarError as error:
            # From a worker process it comes with that process's traceback in its message.
            said = str(error).strip().splitlines()[-1].removeprefix("nearfar.errors.DataError: ")
            self.notes.append(f"Without {without}: {said}.")
            return instead


def read_subject(folder: RunFolder, name: str, *, data: Any = None, device: torch.device) -> Subject:
    """Gather what is there of a run.

    Parameters
    ----------
    folder : RunFolder
        At least its configuration is there.
    name : str
        What the page calls it.
    data : optional
        As in :func:`nearfar.train.evaluate`.
    device : torch.device
        Where the model computes.

    Raises
    ------
    ConfigError
        The configuration cannot be read.
    """
    config = saved_config(folder)
    noting = _Noting()
    attempt = noting.attempt
    metrics = attempt(lambda: _metrics(folder), {}, "the table the run ended with")
    training = attempt(lambda: read_curves(folder.logs / "train.csv"), None, "training curves")
    validation = attempt(lambda: read_curves(folder.logs / "validation.csv"), None, "validation curves")
    recipe = attempt(lambda: read_recipe(folder, config), None, "the recipe and its papers")
    seen = attempt(
        lambda: _seen(noting, *_embedded(folder, config, data, device)),
        Seen(),
        "figures, neighbours, the map and the hardest pairs",
    )
    return Subject(
        name=name,
        config=config.to_yaml(),
        metrics=metrics,
        training=training,
        validation=validation,
        recipe=recipe,
        seen=seen,
        notes=tuple(noting.notes),
    )


def _seen(noting: _Noting, judged: Judged, source: ImageSource, embeddings: Tensor) -> Seen:
    attempt, scenes, kept = noting.attempt, Scenes(source, embeddings), source.asked()
    positives, negatives = scenes.hardest()
    return Seen(
        judged=judged,
        retrieval=attempt(lambda: retrieval_figures(embeddings, source), (), "retrieval"),
        pairs=attempt(lambda: pair_figures(embeddings[kept], source.labels[kept]), None, "verification"),
        queries=attempt(scenes.queries, (), "neighbours"),
        positives=positives,
        negatives=negatives,
        map=scenes.map(),
    )


def _metrics(folder: RunFolder) -> Mapping[str, Any]:
    try:
        found = json.loads(folder.metrics.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder.metrics.name} is missing, as the run is not finished") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder.metrics.name} is damaged: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise CheckpointError(f"{folder.metrics.name} is damaged: it is not a mapping of mappings")
    return found


def _embedded(folder: RunFolder, config: Config, data: Any, device: torch.device) -> tuple[Judged, ImageSource, Tensor]:
    if not folder.model.exists():
        raise CheckpointError(f"{folder.model.name} is missing, which the first validation writes")
    model = load_model(folder.model)
    source, name, own = judged_source(config, data, image_size=input_size(model.data_config))
    embeddings = embed(model, source, device=device, workers=loader_workers(config.data.workers, source))
    if not bool(torch.isfinite(embeddings).all()):
        raise CheckpointError(f"{folder.model.name} gives embeddings that are not finite")
    named = json.dumps([source.class_names, source.labels.tolist(), told_queries(source)])
    digest = hashlib.sha256(named.encode()).hexdigest()
    return (
        Judged(os.fspath(name), len(source), source.num_classes, own, told_queries(source), digest),
        source,
        embeddings,
    )
