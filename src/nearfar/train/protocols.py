"""What a trained network is asked besides the table: verify, identify, and find again across cameras.

Every figure comes with its tag: what it depends on besides the weights and the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nearfar.data import ImageSource
from nearfar.data.size import told
from nearfar.errors import ConfigError
from nearfar.evaluate import (
    Identification,
    KReciprocal,
    Verification,
    all_pairs,
    expand_queries,
    identification_metrics,
    ranking_metrics,
    verification_metrics,
)
from nearfar.inference.features import Flip
from nearfar.models import EmbeddingModel
from nearfar.train.table import embed, told_queries
from nearfar.train.templates import by_template, told_templates

Protocol = Literal["retrieval", "verification", "identification", "reidentification"]
#: What ``nearfar evaluate`` can ask.
PROTOCOLS = get_args(Protocol)

Post = Literal["none", "expand", "k_reciprocal"]
#: What may be done with queries and their gallery before they are ranked.
POSTS = get_args(Post)

#: Pairs that are looked at where there are more, and the draws of the bootstrap.
_PAIRS, RESAMPLES = 2**21, 200
_EXPANDED = 10
_DIR = "DIR at the largest false-alarm rate not above the one named"


def tag(model: EmbeddingModel, flip: Flip, *more: str) -> str:
    """What a figure depends on besides weights and images: how they were fed, and ``more``."""
    about = model.data_config
    scaled = "; ".join(f"{name} {' '.join(f'{value:.4g}' for value in about[name])}" for name in ("mean", "std"))
    fed = f"{'BGR' if model.bgr else 'RGB'} of {told(about['input_size'][1:])} pixels, {scaled}"
    return "; ".join([f"flip {flip}", fed, "cosine", *more])


def verification(x: Tensor, source: ImageSource, *, seed: int = 0) -> dict[str, Any]:
    """All pairs of the images, two million at most, with intervals by identity; distractors have none.

    Parameters
    ----------
    x : Tensor
        (n, d) embeddings of the source's images.
    source : ImageSource
    seed : int
        Of the pairs, where they are drawn, and of the bootstrap.
    """
    kept = source.asked()
    x, labels = x[kept], source.labels[kept]
    similarities, same, identities = all_pairs(x, labels, most=_PAIRS, seed=seed)
    found = verification_metrics(similarities, same, identities=identities, resamples=RESAMPLES, seed=seed)
    there = len(x) * (len(x) - 1) // 2
    pairs = "all pairs" if len(same) == there else f"{len(same)} of {there} pairs drawn within each kind, seed {seed}"
    return flat(found, pairs)


def identification(x: Tensor, source: ImageSource, *, seed: int = 0) -> dict[str, Any]:
    """Half of each identity's images as a gallery, the others as probes; then half of the identities left out of it.

    The closed set has all identities in the gallery: ``rank@k``. In the open set, the probes of every other identity
    are strangers: ``dir@far``. Where the source says what its queries are, those are the probes, and those of them
    whose identity its gallery lacks are the strangers.

    Parameters
    ----------
    x : Tensor
        (n, d) embeddings of the source's images.
    source : ImageSource
    seed : int
        Of who and what goes into the gallery.
    """
    labels, asks = source.labels, source.queries
    if asks is not None:
        closed = identification_metrics(x[asks], labels[asks], x[~asks], labels[~asks])
        found = _ranks(closed) | (_detections(closed) if closed.strangers else {})
        asked = told_queries(source, by_camera=False)
        return found | {"protocol": f"{asked}; {_DIR}" if closed.strangers else asked}
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    kept = place < (counts[labels[order]] + 1) // 2
    gallery, probes = order[kept], order[~kept]
    closed = identification_metrics(x[probes], labels[probes], x[gallery], labels[gallery])
    found = _ranks(closed)
    enrolled = torch.randperm(len(counts), generator=generator)[: len(counts) // 2]
    known = gallery[torch.isin(labels[gallery], enrolled)]
    if torch.isin(labels[probes], enrolled).any():
        opened = identification_metrics(x[probes], labels[probes], x[known], labels[known])
        found |= _detections(opened)
    how = f"half of each identity's images as gallery, seed {seed}; {_DIR}, half of the identities not in the gallery"
    return found | {"protocol": how}


def _ranks(found: Identification) -> dict[str, Any]:
    counts = {"probes": found.probes, "identities": found.identities}
    distractors = {"distractors": found.distractors} if found.distractors else {}
    return {f"rank@{k}": rate for k, rate in found.cmc.items()} | counts | distractors


def _detections(found: Identification) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for point in found.detections:
        # An infinite threshold, which no stranger and nobody else reaches, has no place in JSON.
        threshold = None if math.isinf(point.threshold) else point.threshold
        told |= {f"dir@{point.wanted:g}": point.rate, f"dir@{point.wanted:g}/threshold": threshold}
    told |= {f"dir@{far:g}/refused": reason for far, reason in found.refused.items()}
    return told | {"strangers": found.strangers}


def reidentification(x: Tensor, source: ImageSource, *, seed: int = 0, post: Post = "none") -> dict[str, Any]:
    """Each query against the gallery, or each image against all others, but those of its own class and camera.

    Parameters
    ----------
    x : Tensor
        (n, d) embeddings of the source's images.
    source : ImageSource
        With queries, cameras, or both.
    seed : int
        Nothing is drawn.
    post : {"none", "expand", "k_reciprocal"}
        :func:`~nearfar.evaluate.expand_queries` or :class:`~nearfar.evaluate.KReciprocal` with their defaults; of
        queries and a gallery only.

    Raises
    ------
    ConfigError
        The source knows of neither, or not of queries where their ranking is to be processed.
    """
    _check_reidentifiable(source, post)
    cameras, labels = source.cameras, source.labels
    every = torch.ones(len(labels), dtype=torch.bool)
    asks, searched = (every, every) if source.queries is None else (source.queries, ~source.queries)
    query, gallery = x[asks], x[searched]
    query = expand_queries(query, gallery, k=min(_EXPANDED, len(gallery))) if post == "expand" else query
    found: dict[str, Any] = ranking_metrics(
        query,
        labels[asks],
        gallery,
        labels[searched],
        similarities=_nearness(KReciprocal(query, gallery)) if post == "k_reciprocal" else None,
        cameras=None if cameras is None else cameras[asks],
        gallery_cameras=None if cameras is None else cameras[searched],
    )
    if source.queries is None:
        return found | {"protocol": "each image a query against all others but those of its own class and camera"}
    found["distractors"] = int((~torch.isin(labels[searched], labels[asks])).sum())
    junk = getattr(source, "junk", 0)
    left_out = {"junk": junk} if junk else {}
    processed = {
        "none": (),
        "expand": (f"queries expanded by the {_EXPANDED} items they find first",),
        "k_reciprocal": ("re-ranked by k-reciprocal neighbours, k1 20, k2 6, weight 0.3",),
    }[post]
    alone = ("no cameras are known, so nothing is left out",) if cameras is None else ()
    return found | left_out | {"protocol": "; ".join([told_queries(source), *alone, *processed])}


def _nearness(distances: KReciprocal) -> Callable[[int, int], Tensor]:
    return lambda start, stop: -distances.rows(start, stop)


def _check_reidentifiable(source: ImageSource, post: Post) -> None:
    if source.cameras is None and source.queries is None:
        raise ConfigError(
            "re-identification needs to know the cameras, or which images are queries: give a table with a column "
            "camera, or with the splits query and gallery"
        )
    if post != "none" and source.queries is None:
        raise ConfigError(f"{post} looks at queries and a gallery: give a table with the splits query and gallery")


_PROTOCOLS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "verification": verification,
    "identification": identification,
    "reidentification": reidentification,
}


def judged(
    protocol: Protocol,
    model: EmbeddingModel,
    source: ImageSource,
    *,
    flip: Flip,
    seed: int,
    device: torch.device,
    workers: int = 0,
    post: Post = "none",
) -> dict[str, Any]:
    """The figures of one protocol, with their tag as ``protocol``."""
    if protocol == "reidentification":
        _check_reidentifiable(source, post)  # before anything is embedded
    x = embed(model, source, device=device, workers=workers, flip=flip)
    made = told_templates(source)
    x, source = by_template(x, source)
    more = {"post": post} if protocol == "reidentification" else {}
    found = _PROTOCOLS[protocol](x, source, seed=seed, **more)
    return found | {"protocol": tag(model, flip, *made, found["protocol"])}


def flat(found: Verification, pairs: str) -> dict[str, Any]:
    """The figures of verification under flat names; ``pairs`` says which pairs they are of."""
    # An infinite threshold, which accepts nobody, has no place in JSON.
    figures = {name: None if value == float("inf") else value for name, value in found.to_dict().items()}
    return figures | {"protocol": f"{pairs}; {found.protocol}"}


def described(title: str, found: Mapping[str, Any]) -> str:
    """The figures in per cent as lines of text, then what was refused, the counts and the tag."""
    parts = ("/std", "/interval", "/impostors", "/threshold")
    rates = [name for name, value in found.items() if isinstance(value, float) and not name.endswith(parts)]
    width = max(map(len, rates))
    lines = [f"{title}, per cent"]
    for name in rates:
        line = f"  {name:<{width}}  {100 * found[name]:6.2f}"
        if f"{name}/std" in found:
            line += f" ± {100 * found[f'{name}/std']:.2f}"
        if ends := found.get(f"{name}/interval"):
            line += f"  (95%: {100 * ends[0]:.2f} to {100 * ends[1]:.2f})"
        if f"{name}/impostors" in found:
            line += f"  {found[f'{name}/impostors']} impostor pairs accepted"
        lines.append(line)
    lines += [f"  {name.removesuffix('/refused')}: {why}" for name, why in found.items() if name.endswith("/refused")]
    counts = [f"{value} {name.replace('_', ' ')}" for name, value in found.items() if _is_count(name, value)]
    return "\n".join([*lines, f"  {', '.join(counts)}", f"  {found['protocol']}"])


def _is_count(name: str, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and "/" not in name
