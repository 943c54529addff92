"""What the parts compute, said slowly and plainly: the checks of ``nearfar.testing`` hold the parts to it."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

Row = list[float]


def log_ratio(
    embeddings: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None = None,
    ref_labels: Tensor | None = None,
    margin: float = 0.5,
) -> float:
    """The mean of [log d(a, p) − log d(a, n) + m]₊ over every triplet."""
    x = [_unit(row) for row in embeddings.tolist()]
    y = x if ref_emb is None else [_unit(row) for row in ref_emb.tolist()]

    def log(a: int, other: int) -> float:
        return math.log(max(math.dist(x[a], y[other]), 1e-6))

    triplets = [
        (a, p, n)
        for a, (positives, negatives) in enumerate(_others(labels, ref_labels))
        for p in positives
        for n in negatives
    ]
    return sum(max(0.0, log(a, p) - log(a, n) + margin) for a, p, n in triplets) / max(len(triplets), 1)


def nearest_impostor(
    embeddings: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None,
    ref_labels: Tensor | None,
    distance: Callable[[Row, Row], float],
) -> set[tuple[int, int, int]]:
    """Every positive pair with the negative that is nearest to its anchor."""
    x = embeddings.tolist()
    y = x if ref_emb is None else ref_emb.tolist()
    return {
        (a, p, min(negatives, key=lambda n: distance(x[a], y[n])))
        for a, (positives, negatives) in enumerate(_others(labels, ref_labels))
        for p in positives
        if negatives
    }


def _unit(row: Row) -> Row:
    length = math.hypot(*row)
    return [v / length for v in row] if length else row


def _others(labels: Tensor, ref_labels: Tensor | None) -> list[tuple[list[int], list[int]]]:
    """Of each anchor its positives and its negatives; nothing is its own positive."""
    own = labels.tolist()
    others = own if ref_labels is None else ref_labels.tolist()
    return [
        (
            [i for i, other in enumerate(others) if other == label and (ref_labels is not None or i != a)],
            [i for i, other in enumerate(others) if other != label],
        )
        for a, label in enumerate(own)
    ]
