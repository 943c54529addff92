"""What is looked at in a cloud of embeddings: its two widest directions, and its pairs that are furthest off."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_ROWS = 512
#: Candidates for one that is shown: an image is in one pair of a list only.
_CANDIDATES = 64


class Pair(NamedTuple):
    """Two images, by position, and the cosine of their embeddings."""

    first: int
    second: int
    similarity: float


def plane(embeddings: Tensor) -> tuple[Tensor, float]:
    """Project embeddings of length one on their first two principal components.

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite.

    Returns
    -------
    points : Tensor
        (n, 2) float64 in [0, 1], both axes by one scale. A component's largest entry is positive, so that the same
        embeddings give the same picture.
    share : float
        [0..1] Of the variance, how much the plane has.
    """
    x = F.normalize(embeddings.double(), dim=1)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x)
    axes = vectors.flip(1)[:, :2]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    points = F.pad(x @ axes, (0, 2 - axes.shape[1]))
    total = float(values.clamp(min=0).sum())
    share = float(values.clamp(min=0).flip(0)[:2].sum()) / total if total > 0 else 1.0
    low, high = points.min(0).values, points.max(0).values
    scale = float((high - low).max()) or 1.0
    return (points - (low + high) / 2) / scale + 0.5, share


def hardest_pairs(embeddings: Tensor, labels: Tensor, count: int) -> tuple[list[Pair], list[Pair]]:
    """The genuine pairs furthest apart and the impostor pairs nearest together, each image in one pair of a list.

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite.
    labels : Tensor
        (n,) integers.
    count : int
        [1..inf] Pairs of each list, at most.

    Returns
    -------
    positives, negatives : list of Pair
        Hardest first.
    """
    x = F.normalize(embeddings.float(), dim=1)
    found: dict[bool, list[Pair]] = {True: [], False: []}
    for start in range(0, len(x), _ROWS):
        rows = torch.arange(start, min(start + _ROWS, len(x)))
        similarities = x[rows] @ x.T
        later = torch.arange(len(x)) > rows[:, None]
        same = labels[rows][:, None] == labels
        for genuine in (True, False):
            hardness = torch.where(later & (same == genuine), similarities * (-1 if genuine else 1), -torch.inf)
            values, places = hardness.flatten().topk(min(_CANDIDATES * count, hardness.numel()))
            for place in places[values > -torch.inf].tolist():
                row, column = divmod(place, len(x))
                found[genuine].append(Pair(start + row, column, float(similarities[row, column])))
    positives = sorted(found[True], key=lambda pair: (pair.similarity, pair))
    negatives = sorted(found[False], key=lambda pair: (-pair.similarity, pair))
    return _each_once(positives, count), _each_once(negatives, count)


def _each_once(pairs: list[Pair], count: int) -> list[Pair]:
    kept: list[Pair] = []
    seen: set[int] = set()
    for pair in pairs:
        if len(kept) < count and not {pair.first, pair.second} & seen:
            kept.append(pair)
            seen |= {pair.first, pair.second}
    return kept
