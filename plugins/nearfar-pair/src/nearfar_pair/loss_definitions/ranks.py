"""Ranked lists: what these losses compute, said slowly and plainly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nearfar_pair.loss_definitions.floats import cosine, dot, euclidean, hinge, mean, sides, sigmoid, squared

__all__ = ["fast_ap", "pnp", "ranked_list", "recall_at_k", "smooth_ap"]


def ranked_list(
    embeddings: Any,
    labels: Any,
    ref_emb: Any,
    ref_labels: Any,
    margin: float,
    alpha: float,
    negative_temperature: float,
    positive_temperature: float,
    balance: float,
) -> float:
    """(1 − λ) of the weighed mean of [d − (α − m)]₊ over the positives that cost and λ of that of [α − d]₊."""

    def weighed(excess: list[float], temperature: float) -> float:
        costs = [e for e in excess if e > 0]
        weights = [math.exp(temperature * e) for e in costs]
        return dot(weights, costs) / math.fsum(weights) if costs else 0.0

    return mean(
        [
            (1 - balance) * weighed([d - (alpha - margin) for d in near], positive_temperature)
            + balance * weighed([alpha - d for d in far], negative_temperature)
            for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, euclidean)
        ]
    )


def smooth_ap(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, temperature: float) -> float:
    """One minus the mean over each anchor's positives of their soft rank among positives over that among all."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        precisions = []
        for p, s in enumerate(near):
            among = 1 + math.fsum(sigmoid((q - s) / temperature) for q in near[:p] + near[p + 1 :])
            precisions.append(among / (among + math.fsum(sigmoid((n - s) / temperature) for n in far)))
        costs += [1 - mean(precisions)] if near else []
    return mean(costs)


def recall_at_k(
    embeddings: Any,
    labels: Any,
    ref_emb: Any,
    ref_labels: Any,
    ks: tuple[int, ...],
    rank_temperature: float | tuple[float, ...],
    temperature: float,
) -> float:
    """One minus the mean over k of Σₚ σ((k − rₚ)/τ₁) / min(k, |P|), rₚ a soft rank among all others."""
    each = (rank_temperature,) * len(ks) if isinstance(rank_temperature, int | float) else rank_temperature
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        ranks = []
        for p, s in enumerate(near):
            others = near[:p] + near[p + 1 :] + far
            ranks.append(1 + math.fsum(sigmoid((o - s) / temperature) for o in others))
        if near:
            shares = [
                math.fsum(sigmoid((k - r) / t) for r in ranks) / min(k, len(near))
                for k, t in zip(ks, each, strict=True)
            ]
            costs.append(1 - mean(shares))
    return mean(costs)


def pnp(
    embeddings: Any,
    labels: Any,
    ref_emb: Any,
    ref_labels: Any,
    variant: str,
    alpha: float,
    b: float,
    temperature: float,
) -> float:
    """f of the soft number of negatives before each positive, averaged over each anchor's positives."""
    shapes: dict[str, Callable[[float], float]] = {
        "O": lambda r: r,
        "Iu": lambda r: (1 + r) * math.log(1 + r),
        "Ib": lambda r: (b * r - math.log(1 + b * r)) / b**2,
        "Ds": lambda r: math.log(1 + r),
        "Dq": lambda r: 1 - (1 + r) ** -alpha,
    }
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        before = [math.fsum(sigmoid((n - s) / temperature) for n in far) for s in near]
        costs += [mean([shapes[variant](r) for r in before])] if near else []
    return mean(costs)


def fast_ap(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, num_bins: int) -> float:
    """1 − 1/|P| Σⱼ H⁺ⱼ h⁺ⱼ / Hⱼ of each anchor, from histograms of triangles around j Δ on [0, 4]."""
    width = 4 / num_bins
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, squared):
        if not near:
            continue
        precision, H_p, H = 0.0, 0.0, 0.0
        for j in range(num_bins + 1):
            h_p, h_n = (math.fsum(hinge(1 - abs(d - j * width) / width) for d in ds) for ds in (near, far))
            H_p, H = H_p + h_p, H + h_p + h_n
            precision += H_p * h_p / H if H else 0
        costs.append(1 - precision / len(near))
    return mean(costs)
