"""Three and more: what these losses compute, said slowly and plainly."""

from __future__ import annotations

import math
from typing import Any

from nearfar_pair.loss_definitions.floats import cosine, euclidean, hinge, log_plus_one, mean, non_zero_mean, sides

__all__ = ["arcface_triplet", "hinge_pair", "triplet"]


def triplet(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float, swap: bool, smooth: bool
) -> float:
    """[d_ap − d_an + m]₊ or its softplus, min(d_an, d_pn) for d_an with swap, averaged where above zero."""
    rows, own = embeddings.tolist(), labels.tolist()
    others, classes = (rows, own) if ref_emb is None else (ref_emb.tolist(), ref_labels.tolist())
    costs = []
    for a, x in enumerate(rows):
        for p, y in enumerate(others):
            if classes[p] != own[a] or (ref_emb is None and a == p):
                continue
            for n, z in enumerate(others):
                if classes[n] != own[a]:
                    far = min(euclidean(x, z), euclidean(y, z)) if swap else euclidean(x, z)
                    violation = euclidean(x, y) - far + margin
                    costs.append(log_plus_one(violation) if smooth else hinge(violation))
    return non_zero_mean(costs)


def hinge_pair(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float) -> float:
    """Σₙ [m − sₚ + sₙ]₊, averaged over each anchor's positives."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        costs += [mean([math.fsum(hinge(margin - s + n) for n in far) for s in near])] if near else []
    return mean(costs)


def arcface_triplet(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float) -> float:
    """[θₚ − θₙ + m]₊ of every triplet, averaged where above zero."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        near, far = ([math.acos(min(1.0, max(-1.0, s))) for s in side] for side in (near, far))
        costs += [hinge(p - n + margin) for p in near for n in far]
    return non_zero_mean(costs)
