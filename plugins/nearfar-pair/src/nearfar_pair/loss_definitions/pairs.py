"""One cost for each pair: what these losses compute, said slowly and plainly."""

from __future__ import annotations

import math
from typing import Any

from nearfar_pair.loss_definitions.floats import (
    Row,
    cosine,
    euclidean,
    hinge,
    log_plus_one,
    mean,
    non_zero_mean,
    sides,
    unit,
)

__all__ = [
    "contrastive",
    "histogram",
    "intra_pair_variance",
    "margin_beta",
    "siglip",
    "snr_contrastive",
    "threshold_consistent_margin",
]


def contrastive(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, pos_margin: float, neg_margin: float, hinge: str
) -> float:
    """[d − m₊]₊² of the positive pairs and [m₋ − d]₊² of the negative ones, each averaged where above zero."""
    power = 2 if hinge == "squared" else 1
    positive, negative = [], []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, euclidean):
        positive += [max(d - pos_margin, 0.0) ** power for d in near]
        negative += [max(neg_margin - d, 0.0) ** power for d in far]
    return non_zero_mean(positive) + non_zero_mean(negative)


def margin_beta(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float, nu: float, beta: Any
) -> float:
    """[d − β + α]₊ and [β − d + α]₊ of all pairs, and ν Σ β, over the number of pairs that cost something."""
    costs, boundaries = [], []
    for i, near, far in sides(embeddings, labels, ref_emb, ref_labels, euclidean):
        b = float(beta[labels[i]] if beta.ndim else beta)
        costs += [hinge(d - b + margin) for d in near] + [hinge(b - d + margin) for d in far]
        boundaries += [b] if near or far else []
    return (math.fsum(costs) + nu * math.fsum(boundaries)) / max(1, sum(c > 0 for c in costs))


def siglip(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, log_scale: Any, bias: Any) -> float:
    """log(1 + exp(−z (t s + b))) of every pair, z = ±1, summed, over the number of anchors."""
    t, b = math.exp(log_scale), float(bias)
    total = 0.0
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        total += math.fsum(log_plus_one(-(t * s + b)) for s in near)
        total += math.fsum(log_plus_one(t * s + b) for s in far)
    return total / len(labels)


def threshold_consistent_margin(
    embeddings: Any,
    labels: Any,
    ref_emb: Any,
    ref_labels: Any,
    pos_margin: float,
    neg_margin: float,
    pos_weight: float,
    neg_weight: float,
) -> float:
    """λ⁺ times the mean of m⁺ − s over positives at or below m⁺, and λ⁻ times that of s − m⁻ over negatives above."""
    positive, negative = [], []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        positive += [pos_margin - s for s in near if s < pos_margin]
        negative += [s - neg_margin for s in far if s > neg_margin]
    return pos_weight * mean(positive) + neg_weight * mean(negative)


def snr_contrastive(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, pos_margin: float, neg_margin: float
) -> float:
    """[d − m₊]₊ and [m₋ − d]₊ with d = var(x − a) / var(a) of unit vectors, each averaged where above zero."""

    def variance(x: Row) -> float:
        return mean([(v - mean(x)) ** 2 for v in x])

    def ratio(a: Row, x: Row) -> float:
        return variance([v - w for v, w in zip(unit(x), unit(a), strict=True)]) / variance(unit(a))

    positive, negative = [], []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, ratio):
        positive += [hinge(d - pos_margin) for d in near]
        negative += [hinge(neg_margin - d) for d in far]
    return non_zero_mean(positive) + non_zero_mean(negative)


def intra_pair_variance(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, pos_epsilon: float, neg_epsilon: float
) -> float:
    """[(1 − ε) μ₊ − s]₊² and [s − (1 + ε) μ₋]₊², μ the mean cosine of the pairs of that sign."""
    every = list(sides(embeddings, labels, ref_emb, ref_labels, cosine))
    positive, negative = [s for _, near, _ in every for s in near], [s for *_, far in every for s in far]
    mu_p, mu_n = mean(positive), mean(negative)
    return mean([hinge((1 - pos_epsilon) * mu_p - s) ** 2 for s in positive]) + mean(
        [hinge(s - (1 + neg_epsilon) * mu_n) ** 2 for s in negative]
    )


def histogram(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, num_bins: int) -> float:
    """Σᵣ h⁻ᵣ Σ_{q ≤ r} h⁺_q over the num_bins + 1 nodes of [−1, 1], h of triangles around them."""
    every = list(sides(embeddings, labels, ref_emb, ref_labels, cosine))
    positive, negative = [s for _, near, _ in every for s in near], [s for *_, far in every for s in far]
    step = 2 / num_bins
    total = cumulated = 0.0
    for r in range(num_bins + 1):
        node = -1 + r * step
        cumulated += mean([hinge(1 - abs(s - node) / step) for s in positive])
        total += cumulated * mean([hinge(1 - abs(s - node) / step) for s in negative])
    return total
