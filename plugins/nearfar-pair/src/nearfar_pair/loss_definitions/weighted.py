"""Smooth maxima and weights over an anchor's pairs: what these losses compute, said slowly and plainly."""

from __future__ import annotations

import math
from typing import Any

from nearfar_pair.loss_definitions.floats import cosine, dot, euclidean, hinge, log_plus_one, log_sum, mean, sides, unit

__all__ = ["angular", "circle", "dynamic_soft_margin", "generalized_lifted", "lifted_structure", "multi_similarity"]


def multi_similarity(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, alpha: float, beta: float, base: float
) -> float:
    """1/α log(1 + Σₚ exp(−α (s − λ))) + 1/β log(1 + Σₙ exp(β (s − λ))) of each anchor."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        positive = log_sum([0.0] + [-alpha * (s - base) for s in near]) / alpha
        costs.append(positive + log_sum([0.0] + [beta * (s - base) for s in far]) / beta)
    return mean(costs)


def circle(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float, scale: float) -> float:
    """log(1 + Σₙ exp(γ αₙ (s − m)) Σₚ exp(−γ αₚ (s − 1 + m))), αₚ = [1 + m − s]₊ and αₙ = [s + m]₊."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        if near and far:
            p = log_sum([-scale * hinge(1 + margin - s) * (s - 1 + margin) for s in near])
            n = log_sum([scale * hinge(s + margin) * (s - margin) for s in far])
            costs.append(log_plus_one(p + n))
    return mean(costs)


def generalized_lifted(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float) -> float:
    """[log Σₚ exp(d) + log Σₙ exp(m − d)]₊ of each anchor that has both."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, euclidean):
        if near and far:
            costs.append(hinge(log_sum(near) + log_sum([margin - d for d in far])))
    return mean(costs)


def lifted_structure(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float, form: str) -> float:
    """½ [d_ij + join of α − d over the negatives of both ends]₊², the join a log-sum-exp or a maximum."""
    own = list(sides(embeddings, labels, ref_emb, ref_labels, euclidean))
    other = own if ref_emb is None else list(sides(ref_emb, ref_labels, embeddings, labels, euclidean))
    references = embeddings if ref_emb is None else ref_emb
    classes = labels if ref_labels is None else ref_labels
    costs = []
    for i, _, far in own:
        for j, c in enumerate(classes.tolist()):
            if c != labels[i] or (ref_emb is None and i == j):
                continue
            threats = [margin - d for d in far + other[j][2]]
            if threats:
                join = log_sum(threats) if form == "smooth" else max(threats)
                costs.append(hinge(euclidean(embeddings[i].tolist(), references[j].tolist()) + join) ** 2 / 2)
    return mean(costs)


def angular(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, angle: float) -> float:
    """log(1 + Σₙ exp(4 tan² α (a + p)·n − 2 (1 + tan² α) a·p)) of each positive pair, of unit vectors."""
    rows, own = [unit(x) for x in embeddings.tolist()], labels.tolist()
    others, classes = (rows, own) if ref_emb is None else ([unit(x) for x in ref_emb.tolist()], ref_labels.tolist())
    tan2 = math.tan(angle) ** 2
    costs = []
    for a, x in enumerate(rows):
        for p, y in enumerate(others):
            if classes[p] != own[a] or (ref_emb is None and a == p):
                continue
            total = [v + w for v, w in zip(x, y, strict=True)]
            f = [
                4 * tan2 * dot(total, z) - 2 * (1 + tan2) * dot(x, y)
                for z, c in zip(others, classes, strict=True)
                if c != own[a]
            ]
            costs += [log_sum([0.0, *f])] if f else []
    return mean(costs)


def dynamic_soft_margin(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, num_bins: int, momentum: float, histogram: Any
) -> float:
    """F(d) d of each positive pair, d its distance less that of the nearest negative of either end, F the share that
    lies at or below d's node in the histogram on [−2, 2], to which d was added before."""
    own = list(sides(embeddings, labels, ref_emb, ref_labels, euclidean))
    other = own if ref_emb is None else list(sides(ref_emb, ref_labels, embeddings, labels, euclidean))
    references = embeddings if ref_emb is None else ref_emb
    classes = labels if ref_labels is None else ref_labels
    gaps = []
    for i, _, far in own:
        for j, c in enumerate(classes.tolist()):
            if c == labels[i] and not (ref_emb is None and i == j) and far + other[j][2]:
                gaps.append(euclidean(embeddings[i].tolist(), references[j].tolist()) - min(far + other[j][2]))
    places = [min(max(d + 2, 0.0), 4.0) * (num_bins - 1) / 4 for d in gaps]
    shares, seen = histogram.tolist(), [0.0] * num_bins
    for place in places:
        before = math.floor(place)
        seen[before] += (1 - (place - before)) / len(places)
        seen[min(before + 1, num_bins - 1)] += (place - before) / len(places)
    if places:
        shares = [(1 - momentum) * h + momentum * s for h, s in zip(shares, seen, strict=True)] if any(shares) else seen
    weights = [math.fsum(shares[: math.floor(place) + 1]) / math.fsum(shares) for place in places]
    return mean([w * d for w, d in zip(weights, gaps, strict=True)])
