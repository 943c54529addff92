"""Cross-entropies of positives among others: what these losses compute, said slowly and plainly."""

from __future__ import annotations

import math
from typing import Any

from nearfar_pair.loss_definitions.floats import cosine, dot, hinge, log_sum, mean, sides, squared

__all__ = [
    "decoupled_contrastive",
    "info_nce",
    "n_pair",
    "nca",
    "nt_xent",
    "sup_con",
    "tuplet_margin",
]


def sup_con(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, temperature: float) -> float:
    """−1/|P| Σₚ log(exp(sₚ/τ) / Σₐ exp(sₐ/τ)) of each anchor, a over its positives and negatives."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        if near:
            total = log_sum([s / temperature for s in near + far])
            costs.append(mean([total - s / temperature for s in near]))
    return mean(costs)


def nt_xent(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, temperature: float, others: str) -> float:
    """−log(exp(sₚ/τ) / (exp(sₚ/τ) + Σₖ exp(sₖ/τ))) of each positive pair, k over its anchor's other pairs."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        for p, s in enumerate(near):
            rest = near[:p] + near[p + 1 :] if others == "all" else []
            costs.append(log_sum([k / temperature for k in [s, *rest, *far]]) - s / temperature)
    return mean(costs)


def info_nce(
    embeddings: Any,
    labels: Any,
    ref_emb: Any,
    ref_labels: Any,
    temperature: float,
    positives: str,
    log_scale: Any = None,
) -> float:
    """−log(Σₚ exp(sₚ/τ) / Σₖ exp(sₖ/τ)) of each anchor, k over its positives and negatives, and log |P| for a mean;
    1/τ is what was learned, and no more than 100."""
    by = 1 / temperature if log_scale is None else min(math.exp(float(log_scale)), 100.0)
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        if near:
            cost = log_sum([s * by for s in near + far]) - log_sum([s * by for s in near])
            costs.append(cost + (math.log(len(near)) if positives == "mean" else 0))
    return mean(costs)


def decoupled_contrastive(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, temperature: float, sigma: float | None
) -> float:
    """−w sₚ/τ + log Σₙ exp(sₙ/τ) of each positive pair, w = 2 − exp(sₚ/σ) over its mean, or 1 without σ."""
    every = list(sides(embeddings, labels, ref_emb, ref_labels, cosine))
    middle = mean([math.exp(s / sigma) for _, near, far in every for s in near if far]) if sigma else 1.0
    costs = []
    for _, near, far in every:
        weights = [2 - math.exp(s / sigma) / middle if sigma else 1.0 for s in near]
        costs += [
            log_sum([n / temperature for n in far]) - w * s / temperature
            for s, w in zip(near, weights, strict=True)
            if far
        ]
    return mean(costs)


def n_pair(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, l2_weight: float) -> float:
    """log(1 + Σₙ exp(fₐ·fₙ − fₐ·fₚ)) of each positive pair, and λ ‖fₐ‖² of each anchor that has one."""
    costs, lengths = [], []
    for i, near, far in sides(embeddings, labels, ref_emb, ref_labels, dot):
        costs += [log_sum([0.0] + [n - s for n in far]) for s in near]
        lengths += [dot(*[embeddings[i].tolist()] * 2)] if near else []
    return mean(costs) + l2_weight * mean(lengths)


def tuplet_margin(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float, scale: float) -> float:
    """log(1 + Σₙ exp(s (cos θₙ − cos(θₚ − β)))) of each positive pair, an angle below β counting as β."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        for s in near:
            relaxed = math.cos(hinge(math.acos(min(1.0, max(-1.0, s))) - margin))
            costs += [log_sum([0.0] + [scale * (n - relaxed) for n in far])] if far else []
    return mean(costs)


def nca(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, scale: float, objective: str) -> float:
    """−log p or 1 − p of each anchor, p the softmax of −c d over all others, summed over its positives."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, squared):
        if near:
            log_p = log_sum([-scale * d for d in near]) - log_sum([-scale * d for d in near + far])
            costs.append(-log_p if objective == "log" else 1 - math.exp(log_p))
    return mean(costs)
