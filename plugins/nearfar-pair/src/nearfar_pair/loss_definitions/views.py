"""Two views or modalities: what these losses compute, said slowly and plainly."""

from __future__ import annotations

import math
from typing import Any

from nearfar_pair.loss_definitions.floats import Row, dot, hinge, log_sum, mean

__all__ = ["instance", "vicreg"]


def vicreg(
    embeddings: Any,
    second_view: Any,
    invariance: float,
    variance: float,
    covariance: float,
    deviation: float,
    epsilon: float,
) -> float:
    """λ times the mean of (z − z′)², and of either view μ/d Σⱼ [γ − √(Cⱼⱼ + ε)]₊ and ν/d Σⱼ Σ_{k≠j} Cⱼₖ²."""
    first, second = embeddings.tolist(), second_view.tolist()
    apart = [(a - b) ** 2 for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)]
    total = invariance * mean(apart)
    for view in (first, second):
        columns = [_centred(list(column)) for column in zip(*view, strict=True)]
        C = [[dot(x, y) / max(1, len(view) - 1) for y in columns] for x in columns]
        idle = [hinge(deviation - math.sqrt(C[j][j] + epsilon)) for j in range(len(C))]
        copied = [math.fsum(c**2 for k, c in enumerate(row) if k != j) for j, row in enumerate(C)]
        total += variance * mean(idle) + covariance * mean(copied)
    return total


def _centred(x: Row) -> Row:
    middle = mean(x)
    return [v - middle for v in x]


def instance(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, weight: Any) -> float:
    """−log of the softmax of the class's product, averaged over the embeddings, and again over the references."""

    def cost(x: Row, label: int) -> float:
        logits = [dot(x, w) for w in weight.tolist()]
        return log_sum(logits) - logits[label]

    sides = [(embeddings, labels)] + ([] if ref_emb is None else [(ref_emb, ref_labels)])
    return math.fsum(mean([cost(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]) for x, y in sides)
