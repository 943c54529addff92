"""Losses on logits, as their formulas read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = ["cross_entropy", "distribution_focal", "focal", "quality_focal", "varifocal"]

Row = list[float]


def rows(tensor: Any) -> list[Row]:
    """(n,) or (n, classes) as n lists."""
    return [row if isinstance(row, list) else [row] for row in tensor.tolist()]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else 1 - 1 / (1 + math.exp(z))


def log_sigmoid(z: float) -> float:
    """ln σ(z), which is finite however far the logit."""
    return -math.log1p(math.exp(-z)) if z >= 0 else z - math.log1p(math.exp(z))


def log_softmax(logits: Row) -> Row:
    largest = max(logits)
    total = math.log(sum(math.exp(z - largest) for z in logits))
    return [z - largest - total for z in logits]


def over_elements(cost: Callable[[float, float], float], logits: Any, targets: Any, positives: float | None) -> float:
    """The sum over all logits, by the number of elements or of positives, which count as 1 at least."""
    elements = list(zip(rows(logits), rows(targets), strict=True))
    total = sum(cost(z, y) for row, goals in elements for z, y in zip(row, goals, strict=True))
    return total / (max(len(elements), 1) if positives is None else max(positives, 1))


def focal(
    logits: Any,
    targets: Any,
    alpha: float | None,
    gamma: float,
    normalizer: str | None,
    activation: str,
    background: int,
) -> float:
    """−α_y (1 − p_y)^γ ln p_y of the label y, or its expectation over both labels."""
    if activation == "softmax":
        return softmax_focal(logits, targets, alpha, gamma, normalizer, background)
    of_1, of_0 = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)

    def cost(z: float, y: float) -> float:
        as_1 = -of_1 * math.pow(sigmoid(-z), gamma) * log_sigmoid(z)
        as_0 = -of_0 * math.pow(sigmoid(z), gamma) * log_sigmoid(-z)
        return y * as_1 + (1 - y) * as_0

    return over_elements(cost, logits, targets, float(targets.sum()) if normalizer else None)


def softmax_focal(
    logits: Any, targets: Any, alpha: float | None, gamma: float, normalizer: str | None, background: int
) -> float:
    """−α_c (1 − p_c)^γ ln p_c of the element's class, or its expectation over classes; the background weighs 1 − α."""
    total = positives = 0.0
    goals = targets.tolist()
    for row, goal in zip(logits.tolist(), goals, strict=True):
        shares = goal if isinstance(goal, list) else [float(c == goal) for c in range(len(row))]
        for c, (log_p, share) in enumerate(zip(log_softmax(row), shares, strict=True)):
            weight = 1.0 if alpha is None else 1 - alpha if c == background else alpha
            total -= share * weight * math.pow(-math.expm1(log_p), gamma) * log_p
            positives += share * (c != background)
    return total / (max(len(goals), 1) if normalizer is None else max(positives, 1))


def quality_focal(logits: Any, targets: Any, beta: float, normalizer: str | None) -> float:
    """−|y − p|^β (y ln p + (1 − y) ln(1 − p))."""
    return over_elements(
        lambda z, y: -math.pow(abs(y - sigmoid(z)), beta) * (y * log_sigmoid(z) + (1 - y) * log_sigmoid(-z)),
        logits,
        targets,
        float((targets > 0).sum()) if normalizer else None,
    )


def varifocal(logits: Any, targets: Any, alpha: float, gamma: float, normalizer: str | None) -> float:
    """−q (q ln p + (1 − q) ln(1 − p)) of a positive, −α p^γ ln(1 − p) of a negative."""

    def cost(z: float, q: float) -> float:
        if q > 0:
            return -q * (q * log_sigmoid(z) + (1 - q) * log_sigmoid(-z))
        return -alpha * math.pow(sigmoid(z), gamma) * log_sigmoid(-z)

    return over_elements(cost, logits, targets, float((targets > 0).sum()) if normalizer else None)


def cross_entropy(logits: Any, targets: Any, label_smoothing: float, ignore_index: int | None) -> float:
    """−Σ ((1 − ε) [c = y] + ε / C) ln p_c, over the elements that are not ignored."""
    kept = [(log_softmax(z), y) for z, y in zip(logits.tolist(), targets.tolist(), strict=True) if y != ignore_index]
    total = sum((1 - label_smoothing) * logs[y] + label_smoothing * sum(logs) / len(logs) for logs, y in kept)
    return -float(total) / max(len(kept), 1)


def distribution_focal(distance_logits: Any, target_distances: Any, coord: str) -> float:
    """−(i + 1 − y) ln p_i − (y − i) ln p_{i+1}, of the two whole numbers about y."""
    total, boxes = 0.0, distance_logits.tolist()
    for box, goals in zip(boxes, rows(target_distances), strict=True):
        of_sides = box if isinstance(box[0], list) else [box]
        for logits, goal in zip(of_sides, goals, strict=True):
            y = min(max(goal, 0.0), len(logits) - 1)
            i = min(math.floor(y), len(logits) - 2)
            logs = log_softmax(logits)
            total -= ((i + 1 - y) * logs[i] + (y - i) * logs[i + 1]) / (len(goals) if coord == "mean" else 1)
    return total / max(len(boxes), 1)
