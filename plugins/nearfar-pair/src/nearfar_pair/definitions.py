"""What the miners select, said slowly and plainly: the checks of ``nearfar.testing`` hold the miners to it.

Embeddings are (n, d) and labels (n,); ``ref_emb`` and ``ref_labels`` are None where the batch is compared with
itself. ``distance`` takes two rows and is small for near.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["all_triplets", "batch_hard", "hard", "multi_similarity", "semihard"]

Distance = Callable[[list[float], list[float]], float]
Triplet = tuple[int, int, int]


def all_triplets(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any) -> set[Triplet]:
    """An anchor, another of its class, and one of another class."""
    return {(a, p, n) for a, positive, negative in _sides(labels, ref_labels) for p in positive for n in negative}


def hard(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance) -> set[Triplet]:
    """d(a, n) − d(a, p) ≤ 0."""
    return _between(embeddings, labels, ref_emb, ref_labels, distance, -math.inf, 0.0)


def semihard(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance, margin: float
) -> set[Triplet]:
    """0 < d(a, n) − d(a, p) ≤ m."""
    return _between(embeddings, labels, ref_emb, ref_labels, distance, 0.0, margin)


def batch_hard(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance) -> set[Triplet]:
    """Of each anchor the farthest positive and the nearest negative, the first of equally far ones."""
    d = _matrix(embeddings, ref_emb, distance)
    return {
        (a, max(positive, key=d[a].__getitem__), min(negative, key=d[a].__getitem__))
        for a, positive, negative in _sides(labels, ref_labels)
        if positive and negative
    }


def multi_similarity(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance, epsilon: float
) -> set[tuple[str, int, int]]:
    """d(a, p) > minₙ d(a, n) − ε, and d(a, n) < maxₚ d(a, p) + ε."""
    d = _matrix(embeddings, ref_emb, distance)
    found = set()
    for a, positive, negative in _sides(labels, ref_labels):
        if positive and negative:
            nearest, farthest = min(d[a][n] for n in negative), max(d[a][p] for p in positive)
            found |= {("positive", a, p) for p in positive if d[a][p] > nearest - epsilon}
            found |= {("negative", a, n) for n in negative if d[a][n] < farthest + epsilon}
    return found


def _between(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance, lower: float, upper: float
) -> set[Triplet]:
    """Every triplet with d(a, n) − d(a, p) in (lower, upper]."""
    d = _matrix(embeddings, ref_emb, distance)
    every = all_triplets(embeddings, labels, ref_emb, ref_labels)
    return {(a, p, n) for a, p, n in every if lower < d[a][n] - d[a][p] <= upper}


def _sides(labels: Any, ref_labels: Any) -> Iterator[tuple[int, list[int], list[int]]]:
    """Each anchor with its positives and its negatives; an element is no positive of itself."""
    own = labels.tolist()
    others = own if ref_labels is None else ref_labels.tolist()
    for a, label in enumerate(own):
        positive = [i for i, other in enumerate(others) if other == label and not (ref_labels is None and i == a)]
        yield a, positive, [i for i, other in enumerate(others) if other != label]


def _matrix(embeddings: Any, ref_emb: Any, distance: Distance) -> list[list[float]]:
    rows = embeddings.tolist()
    others = rows if ref_emb is None else ref_emb.tolist()
    return [[distance(row, other) for other in others] for row in rows]
