"""Vectors, sides and sums in Python's floats, for the definitions of losses and miners."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

Row = list[float]
Measure = Callable[[Row, Row], float]
#: An anchor, what it is compared by with its positives, and with its negatives.
Sides = tuple[int, Row, Row]


def dot(x: Row, y: Row) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def unit(x: Row) -> Row:
    length = math.sqrt(dot(x, x))
    return [v / length for v in x]


def cosine(x: Row, y: Row) -> float:
    return dot(unit(x), unit(y))


def squared(x: Row, y: Row) -> float:
    return math.fsum((a - b) ** 2 for a, b in zip(unit(x), unit(y), strict=True))


def euclidean(x: Row, y: Row) -> float:
    return math.sqrt(squared(x, y))


def sides(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, measure: Measure) -> Iterator[Sides]:
    """Each anchor with the measures of its positives and of its negatives; an element is no positive of itself."""
    rows, own = embeddings.tolist(), labels.tolist()
    others = rows if ref_emb is None else ref_emb.tolist()
    classes = own if ref_emb is None else ref_labels.tolist()
    for i, row in enumerate(rows):
        s = [measure(row, other) for other in others]
        positives = [j for j, c in enumerate(classes) if c == own[i] and not (ref_emb is None and i == j)]
        yield i, [s[j] for j in positives], [s[j] for j, c in enumerate(classes) if c != own[i]]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def log_sum(values: list[float]) -> float:
    """log Σ exp, −∞ of nothing."""
    most = max(values, default=-math.inf)
    return most + math.log(math.fsum(math.exp(v - most) for v in values)) if values else most


def log_plus_one(x: float) -> float:
    """log(1 + exp(x))."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def hinge(x: float) -> float:
    return max(x, 0.0)


def non_zero_mean(values: list[float]) -> float:
    return mean([v for v in values if v > 0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
