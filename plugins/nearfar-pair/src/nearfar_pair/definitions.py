"""What the miners select, said slowly and plainly: the checks of ``nearfar.testing`` hold the miners to it.

Embeddings are (n, d) and labels (n,); ``ref_emb`` and ``ref_labels`` are None where the batch is compared with
itself. ``distance`` takes two rows and is small for near.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from nearfar_pair.loss_definitions.floats import euclidean, unit

__all__ = [
    "all_triplets",
    "angular",
    "batch_easy_hard",
    "batch_hard",
    "easy",
    "hard",
    "hard_negative_all_positive",
    "hdc",
    "multi_similarity",
    "pair_margin",
    "semihard",
    "semihard_one",
]

Distance = Callable[[list[float], list[float]], float]
Triplet = tuple[int, int, int]
#: ``positive`` or ``negative``, the anchor, the other.
SignedPair = tuple[str, int, int]


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


def easy(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance, margin: float
) -> set[Triplet]:
    """d(a, n) − d(a, p) > m."""
    return _between(embeddings, labels, ref_emb, ref_labels, distance, margin, math.inf)


def semihard_one(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance) -> set[Triplet]:
    """Of each positive pair the nearest negative with d(a, n) > d(a, p), the first of equally near ones."""
    d = _matrix(embeddings, ref_emb, distance)
    found = set()
    for a, positive, negative in _sides(labels, ref_labels):
        for p in positive:
            beyond = [n for n in negative if d[a][n] > d[a][p]]
            if beyond:
                found.add((a, p, min(beyond, key=d[a].__getitem__)))
    return found


def hard_negative_all_positive(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance
) -> set[Triplet]:
    """Of each positive pair the nearest negative of its anchor, the first of equally near ones."""
    d = _matrix(embeddings, ref_emb, distance)
    return {
        (a, p, min(negative, key=d[a].__getitem__))
        for a, positive, negative in _sides(labels, ref_labels)
        for p in positive
        if negative
    }


def multi_similarity(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance, epsilon: float
) -> set[SignedPair]:
    """Negatives with d(a, n) − max d(a, p) < ε, positives with min d(a, n) − d(a, p) < ε."""
    d = _matrix(embeddings, ref_emb, distance)
    found: set[SignedPair] = set()
    for a, positive, negative in _sides(labels, ref_labels):
        farthest = max((d[a][p] for p in positive), default=-math.inf)
        nearest = min((d[a][n] for n in negative), default=math.inf)
        found |= {("positive", a, p) for p in positive if nearest - d[a][p] < epsilon}
        found |= {("negative", a, n) for n in negative if d[a][n] - farthest < epsilon}
    return found


def hdc(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, distance: Distance, fraction: float
) -> set[SignedPair]:
    """The ⌈f |P|⌉ farthest positive and the ⌈f |N|⌉ nearest negative pairs, of equally far ones the first."""
    d = _matrix(embeddings, ref_emb, distance)
    every: dict[str, list[tuple[int, int]]] = {"positive": [], "negative": []}
    for a, positive, negative in _sides(labels, ref_labels):
        every["positive"] += [(a, p) for p in positive]
        every["negative"] += [(a, n) for n in negative]
    every["positive"].sort(key=lambda pair: -d[pair[0]][pair[1]])
    every["negative"].sort(key=lambda pair: d[pair[0]][pair[1]])
    # A share such as 0.07 of 100 is 7, though its product in floats is above.
    share = Fraction(str(fraction))
    return {(sort, *pair) for sort, pairs in every.items() for pair in pairs[: math.ceil(share * len(pairs))]}


def pair_margin(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, pos_margin: float, neg_margin: float
) -> set[SignedPair]:
    """Positives with ‖a − p‖ > m₊, negatives with ‖a − n‖ < m₋, of normalised embeddings."""
    d = _matrix(embeddings, ref_emb, euclidean)
    found: set[SignedPair] = set()
    for a, positive, negative in _sides(labels, ref_labels):
        found |= {("positive", a, p) for p in positive if d[a][p] > pos_margin}
        found |= {("negative", a, n) for n in negative if d[a][n] < neg_margin}
    return found


def batch_easy_hard(
    embeddings: Any,
    labels: Any,
    ref_emb: Any,
    ref_labels: Any,
    distance: Distance,
    pos_strategy: str,
    neg_strategy: str,
    allowed_pos_range: tuple[float, float] | None,
    allowed_neg_range: tuple[float, float] | None,
) -> set[SignedPair]:
    """A positive and a negative of each anchor that has both, by strategies, at distances in ranges."""
    d = _matrix(embeddings, ref_emb, distance)
    found: set[SignedPair] = set()
    for a, positive, negative in _sides(labels, ref_labels):
        of = d[a].__getitem__
        far: dict[str, Callable[..., int]] = {"easy": min, "hard": max, "semihard": max}
        near: dict[str, Callable[..., int]] = {"easy": max, "hard": min, "semihard": min}
        ps = [p for p in positive if _inside(d[a][p], allowed_pos_range)]
        ns = [n for n in negative if _inside(d[a][n], allowed_neg_range)]
        if neg_strategy != "all" and neg_strategy != "semihard" and ns:
            ns = [near[neg_strategy](ns, key=of)]
        if pos_strategy == "semihard":
            ps = [p for p in ps if ns and d[a][p] < d[a][ns[0]]]
        if pos_strategy != "all" and ps:
            ps = [far[pos_strategy](ps, key=of)]
        if neg_strategy == "semihard":
            ns = [n for n in ns if ps and d[a][n] > d[a][ps[0]]]
            ns = [min(ns, key=of)] if ns else []
        if ps and ns:
            found |= {("positive", a, p) for p in ps} | {("negative", a, n) for n in ns}
    return found


def angular(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, angle: float) -> set[Triplet]:
    """‖a − p‖ > 2 tan α ‖n − (a + p)/2‖, of normalised embeddings."""
    rows = [unit(row) for row in embeddings.tolist()]
    others = rows if ref_emb is None else [unit(row) for row in ref_emb.tolist()]
    found = set()
    for a, p, n in all_triplets(embeddings, labels, ref_emb, ref_labels):
        middle = [(x + y) / 2 for x, y in zip(rows[a], others[p], strict=True)]
        if math.dist(rows[a], others[p]) > 2 * math.tan(angle) * math.dist(others[n], middle):
            found.add((a, p, n))
    return found


def _inside(value: float, allowed: tuple[float, float] | None) -> bool:
    return allowed is None or allowed[0] <= value <= allowed[1]


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
