"""Losses on rotated boxes as normal distributions, by 2 × 2 matrices, as their formulas read.

A side is read as 1e-4 of the longest of a pair, a side or the way from centre to centre along an axis, where it is
less; a predicted side costs what it is short of that and of the target's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["gwd", "kld", "probiou"]

LEAST = 1e-4
Matrix = NDArray[np.float64]


def distributions(
    pred_boxes: Any, target_boxes: Any, share: float
) -> Iterator[tuple[Matrix, Matrix, Matrix, float, float]]:
    """Of each pair the offset of the means, both covariances, what short sides cost, and the product of all sides.

    A covariance is ``share · R diag(w², h²) Rᵀ``.
    """
    for pred, target in zip(pred_boxes.tolist(), target_boxes.tolist(), strict=True):
        offset = np.array(pred[:2]) - np.array(target[:2])
        longest = max(*pred[2:4], *target[2:4], *map(abs, offset.tolist())) or 1.0
        least = LEAST * longest
        known = [max(side, least) for side in target[2:4]]
        sides = [max(side, least) for side in pred[2:4]]
        cost = 0.0
        # The target's axes are named so that its longer side is beside the prediction's.
        swapped = (pred[2] - pred[3]) * (target[2] - target[3]) < 0
        for side, other in zip(pred[2:4], reversed(target[2:4]) if swapped else target[2:4], strict=True):
            depth = max(0.0, min(max(other, 0.0), least) - side)
            cost += depth / (depth + max(other, least))
        yield (
            offset,
            covariance(sides, pred[4], share),
            covariance(known, target[4], share),
            cost,
            math.prod([*sides, *known]),
        )


def covariance(sides: list[float], angle: float, share: float) -> Matrix:
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    covariance: Matrix = share * turn @ np.diag(np.square(sides)) @ turn.T
    return covariance


def transformed(divergence: float, transform: str, tau: float | None) -> float:
    divergence = max(divergence, 0.0)
    root = math.sqrt(divergence)
    f = {"log1p": math.log1p(divergence), "sqrt": root, "log1p_sqrt": math.log1p(root)}[transform]
    return f if tau is None else 1 / tau - 1 / (tau + f)


def mean(cost: Callable[[Matrix, Matrix, Matrix, float], float], pred: Any, target: Any, share: float) -> float:
    each = [cost(d, p, t, product) + short for d, p, t, short, product in distributions(pred, target, share)]
    return sum(each) / max(len(each), 1)


def root_of(matrix: Matrix) -> Matrix:
    """The root of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    root: Matrix = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def gwd(pred_boxes: Any, target_boxes: Any, transform: str, tau: float | None, normalize: bool) -> float:
    """Of |μ_p − μ_t|² + Tr(Σ_p + Σ_t − 2 (Σ_p^½ Σ_t Σ_p^½)^½), in geometric means of all sides where normalised."""

    def cost(offset: Matrix, pred: Matrix, target: Matrix, product: float) -> float:
        root = root_of(pred)
        squared = float(offset @ offset + np.trace(pred + target - 2 * root_of(root @ target @ root)))
        return transformed(squared / math.sqrt(product) if normalize else squared, transform, tau)

    return mean(cost, pred_boxes, target_boxes, 1 / 4)


def kld(pred_boxes: Any, target_boxes: Any, direction: str, transform: str, tau: float | None) -> float:
    """Of ½ (δᵀ Σ⁻¹ δ + Tr(Σ⁻¹ Σ') + ln |Σ| / |Σ'|) − 1, one way, the other way, or the mean of both."""

    def one_way(offset: Matrix, sigma: Matrix, known: Matrix) -> float:
        inverse = np.linalg.inv(known)
        logs = math.log(np.linalg.det(known) / np.linalg.det(sigma))
        return 0.5 * (float(offset @ inverse @ offset + np.trace(inverse @ sigma)) + logs) - 1

    def cost(offset: Matrix, pred: Matrix, target: Matrix, product: float) -> float:
        there, back = one_way(offset, pred, target), one_way(offset, target, pred)
        found = {"pred_target": there, "target_pred": back, "jeffreys": (there + back) / 2}[direction]
        return transformed(found, transform, tau)

    return mean(cost, pred_boxes, target_boxes, 1 / 4)


def probiou(pred_boxes: Any, target_boxes: Any, form: str) -> float:
    """Of B = ¼ δᵀ (Σ_p + Σ_t)⁻¹ δ + ½ ln |Σ_p + Σ_t| / 4 √(|Σ_p| |Σ_t|): B, or √(1 − e^−B)."""

    def cost(offset: Matrix, pred: Matrix, target: Matrix, product: float) -> float:
        both = pred + target
        volumes = math.sqrt(np.linalg.det(pred) * np.linalg.det(target))
        distance = 0.25 * float(offset @ np.linalg.inv(both) @ offset)
        distance = max(0.0, distance + 0.5 * math.log(np.linalg.det(both) / (4 * volumes)))
        return distance if form == "bhattacharyya" else math.sqrt(1 - math.exp(-distance))

    return mean(cost, pred_boxes, target_boxes, 1 / 12)
