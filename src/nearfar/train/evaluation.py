"""``evaluate``: the trained network of a run folder, judged on its test classes or on other images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nearfar.data import ImageSource
from nearfar.data.size import Size, input_size
from nearfar.errors import CheckpointError, ConfigError, DataError
from nearfar.evaluate.topk import ENGINES, Engine
from nearfar.inference.features import FLIPS, Flip
from nearfar.models import load_model
from nearfar.train.config import Config, saved_config
from nearfar.train.folder import RunFolder
from nearfar.train.job import build_model, resolve_device
from nearfar.train.pairs import is_list, judged_pairs
from nearfar.train.protocols import POSTS, PROTOCOLS, Post, Protocol, described, judged, tag
from nearfar.train.sources import loader_workers, open_test
from nearfar.train.table import Scores, compare, render, told_queries


def evaluate(
    path: str | os.PathLike[str],
    *,
    data: Any = None,
    device: str = "auto",
    protocol: Protocol = "retrieval",
    pairs: Sequence[str | os.PathLike[str]] = (),
    flip: Flip = "none",
    post: Post = "none",
    engine: Engine = "torch",
    seed: int = 0,
) -> tuple[dict[str, Any], str]:
    """Recompute the table of a run, make it of other data, or judge the trained network by another protocol.

    Parameters
    ----------
    path : path
        The run folder.
    data : optional
        A folder, a table or a dataset in place of the run's own test classes. One that is divided gives its test
        classes; of anything else all classes are taken, as the run has seen none of them.
    device : {"auto", "cpu", "cuda"}
    protocol : {"retrieval", "verification", "identification", "reidentification"}
        ``retrieval``: the table. ``verification``: all pairs, with intervals by identity. ``identification``: half of
        each class's images are the gallery of the others. ``reidentification``: of a table with cameras, what the own
        camera saw is left out.
    pairs : sequence of path
        Judged in place of the classes: verification sets as insightface keeps them, ``lfw.bin``, or tables, CSV or
        Parquet, with columns ``a``, ``b``, ``same`` and perhaps ``fold``. A table names image files, by their paths
        from its own folder, or with ``data`` the images or the templates of that.
    flip : {"none", "sum", "concatenate"}
        As in :func:`nearfar.inference.features`.
    post : {"none", "expand", "k_reciprocal"}
        What is done with queries and their gallery before re-identification ranks them: average query expansion, or
        k-reciprocal re-ranking.
    engine : {"torch", "faiss"}
        What finds the neighbours of the protocol ``retrieval``, as in :func:`nearfar.evaluate.nearest`.
    seed : int
        Of what a protocol draws.

    Returns
    -------
    dict, str
        ``{"test": {"raw": …, "untrained": …, "trained": …}, "protocol": …}``, or the figures below the protocol's
        name, or below ``"pairs"`` and each file; and the same as text. With each goes ``protocol``: how images were
        fed, mirror images, folds, the rule for false-accept rates.

    Raises
    ------
    CheckpointError
        There is no run, or it has no model yet.
    ConfigError
        There is no such protocol, ``pairs`` are given with another protocol, or with ``data`` though they have images
        of their own, or cameras are not known.
    DataError
        The data or a verification set cannot be used.
    """
    _check_asked(protocol, flip, post, engine, pairs, data)
    folder = RunFolder.open(path)
    if not folder.model.exists():
        then = f"nearfar train --resume {path} goes on" if folder.checkpoint.exists() else "it has to be started anew"
        raise CheckpointError(f"{path} has no {folder.model.name} yet, which the first validation writes: {then}")
    config = saved_config(folder)
    where = resolve_device(device)
    model = load_model(folder.model)
    if pairs:
        size = input_size(model.data_config)
        source = None if data is None else judged_source(config, data, image_size=size)[0]
        words: dict[str, Any] = {"flip": flip, "device": where, "workers": config.data.workers, "seed": seed}
        sets = {str(one): judged_pairs(Path(one), model, **words, source=source) for one in pairs}
        return {"pairs": sets}, "\n\n".join(described(name, found) for name, found in sets.items())
    test, name, own = judged_source(config, data, image_size=input_size(model.data_config))
    facts = data_facts(name, test)
    if protocol == "retrieval":
        if engine == "faiss" and test.queries is not None:
            raise ConfigError(
                f"engine is faiss, which finds the nearest, and {name} has queries that rank a gallery whole"
            )
        rows = network_table(config, folder, test, where, flip, engine)
        told = tag(model, flip, told_queries(test), *(["neighbours by faiss"] if engine == "faiss" else []))
        return {"test": rows, "protocol": told}, f"{render(rows, table_title(facts, unseen=own))}\n{told}"
    workers = loader_workers(config.data.workers, test)
    found = judged(protocol, model, test, flip=flip, seed=seed, device=where, workers=workers, post=post)
    title = f"{protocol} on {table_title(facts, unseen=own).removesuffix(', per cent')}"
    return {protocol: found}, described(title, found)


def _check_asked(protocol: str, flip: str, post: str, engine: str, pairs: Sequence[Any], data: Any) -> None:
    named = (
        ("protocol", protocol, PROTOCOLS),
        ("flip", flip, FLIPS),
        ("post", post, POSTS),
        ("engine", engine, ENGINES),
    )
    for name, value, known in named:
        if value not in known:
            raise ConfigError(f"{name} is {value!r}, but must be one of {', '.join(known)}")
    if pairs and protocol != "retrieval":
        raise ConfigError("pairs have a protocol of their own: leave protocol out")
    if data is not None and (alone := [str(one) for one in pairs if not is_list(Path(one))]):
        raise ConfigError(f"{alone[0]} has images of its own: leave data out, which is for tables of pairs")
    if post != "none" and protocol != "reidentification":
        raise ConfigError(f"post is {post}, which is for the protocol reidentification")
    if engine != "torch" and (pairs or protocol != "retrieval"):
        raise ConfigError(f"engine is {engine}, which is for the protocol retrieval")


def judged_source(config: Config, data: Any, *, image_size: Size) -> tuple[ImageSource, str, bool]:
    """What a run is judged on: the images, what they are called, and whether they are its own test classes.

    Parameters
    ----------
    config : Config
        The run's.
    data : optional
        As in :func:`evaluate`.
    image_size : int or (height, width)
        What images are cut to, in pixels.

    Raises
    ------
    ConfigError, DataError
        There is no such data, or it cannot be used.
    """
    if isinstance(data, Mapping):
        if "test" not in data:
            raise DataError("data has no test, which a run is judged on: give that, or a data set alone")
        data = data["test"]
    named = isinstance(data, (str, os.PathLike))
    own = data is None or (named and Path(data).resolve() == Path(config.data.source).resolve())
    test = open_test(config.data.source if own else data, whole=not own, image_size=image_size)
    return test, config.data.source if own else str(data) if named else type(data).__name__, own


def network_table(
    config: Config,
    folder: RunFolder,
    test: ImageSource,
    device: torch.device,
    flip: Flip = "none",
    engine: Engine = "torch",
) -> dict[str, Scores]:
    """Score raw pixels, the network as it began, and the best weights of a run."""
    trained = load_model(folder.model)
    workers = loader_workers(config.data.workers, test)
    untrained = build_model(config)
    return compare(test, untrained=untrained, trained=trained, device=device, workers=workers, flip=flip, engine=engine)


def data_facts(source: str, test: ImageSource) -> dict[str, Any]:
    """What is judged on, for the title of a table and for ``metrics.json``."""
    return {"source": source, "test_classes": test.num_classes, "test_images": len(test)}


def table_title(data: Mapping[str, Any], *, unseen: bool = True) -> str:
    """What stands above a table; ``unseen``: whether its classes are the run's own test classes."""
    sort = "unseen test classes" if unseen else "classes"
    return f"{data['source']}: {data['test_images']} images of {data['test_classes']} {sort}, per cent"
