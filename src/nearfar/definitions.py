"""What core's reducers and distances compute, said slowly and plainly: the checks of ``nearfar.testing`` hold the
parts to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "avg_non_zero",
    "class_weighted",
    "cosine",
    "divisor",
    "dot",
    "euclidean",
    "mean",
    "none",
    "per_anchor",
    "per_group",
    "squared_euclidean",
    "threshold",
    "top_k",
    "total",
]

Row = Sequence[float]


def mean(values: Row, normalizer: float | None = None) -> float:
    """Σ v / K, or Σ v over what the loss gives to divide by."""
    divisor = len(values) if normalizer is None else normalizer
    return math.fsum(values) / divisor if divisor else 0.0


def total(values: Row) -> float:
    """Σ v."""
    return math.fsum(values)


def avg_non_zero(values: Row) -> float:
    """The mean of the values greater than zero; 0 where there is none."""
    return mean([v for v in values if v > 0])


def top_k(values: Row, k: int) -> float:
    """The mean of the k greatest values."""
    return mean(sorted(values, reverse=True)[:k])


def divisor(values: Row, normalizer: float | None = None) -> float:
    """Σ v over what the loss gives to divide by, or K; 0 where that is 0."""
    return mean(values, normalizer)


def threshold(values: Row, low: float | None, high: float | None) -> float:
    """The mean of the values between both bounds; 0 where there is none."""
    return mean([v for v in values if (low is None or v > low) and (high is None or v < high)])


def class_weighted(
    values: Row, anchors: Sequence[int], labels: Sequence[int], class_weights: Row, normalizer: float | None = None
) -> float:
    """Σ w v / K, w of the class of the anchor."""
    return mean([class_weights[labels[a]] * v for v, a in zip(values, anchors, strict=True)], normalizer)


def per_anchor(values: Row, anchors: Sequence[int]) -> float:
    """The mean over anchors of the mean within each."""
    return per_group(values, anchors, labels=range(max(anchors, default=-1) + 1))


def per_group(
    values: Row, anchors: Sequence[int], labels: Sequence[int] | None = None, groups: Sequence[int] | None = None
) -> float:
    """The mean over groups of the mean within each; a value is in the group, or else the class, of its anchor."""
    known = labels if groups is None else groups
    assert known is not None
    found: dict[int, list[float]] = {}
    for value, anchor in zip(values, anchors, strict=True):
        found.setdefault(known[anchor], []).append(value)
    return mean([mean(each) for each in found.values()])


def none(values: Row) -> list[float]:
    """The values."""
    return list(values)


def euclidean(x: Row, y: Row, normalize: bool = True) -> float:
    """‖x − y‖, of vectors scaled to length one where that is asked for."""
    return math.dist(_unit(x), _unit(y)) if normalize else math.dist(x, y)


def squared_euclidean(x: Row, y: Row, normalize: bool = True) -> float:
    """‖x − y‖², of vectors scaled to length one where that is asked for."""
    if normalize:
        x, y = _unit(x), _unit(y)
    return math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def cosine(x: Row, y: Row) -> float:
    """x · y / (‖x‖ ‖y‖)."""
    return dot(_unit(x), _unit(y))


def dot(x: Row, y: Row) -> float:
    """x · y."""
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def _unit(x: Row) -> Row:
    """x scaled to length one; a vector without a direction stays as it is."""
    length = math.hypot(*x)
    return [a / length for a in x] if length else x
