"""Three and more: what these losses compute, said slowly and plainly."""

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
    squared,
)

__all__ = ["arcface_triplet", "centroid_triplet", "hinge_pair", "quadruplet", "triplet"]


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


def quadruplet(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float, pair_margin: float) -> float:
    """[d_ap − d_an + α₁]₊ of every triplet, averaged where above zero; and of every positive pair the mean of the
    [d_ap − d_kl + α₂]₊ above zero, (k, l) any two of different classes other than a's, averaged alike."""
    triplets, quadruplets = [], []
    own = list(sides(embeddings, labels, ref_emb, ref_labels, squared))
    for a, near, far in own:
        triplets += [hinge(p - n + margin) for p in near for n in far]
        elsewhere = []
        for k, row in enumerate(embeddings.tolist()):
            others = embeddings if ref_emb is None else ref_emb
            classes = labels if ref_labels is None else ref_labels
            for other, c in zip(others.tolist(), classes.tolist(), strict=True):
                if labels[k] != labels[a] and c not in (labels[a], labels[k]):
                    elsewhere.append(squared(row, other))
        quadruplets += [non_zero_mean([hinge(p - d + pair_margin) for d in elsewhere]) for p in near]
    return non_zero_mean(triplets) + non_zero_mean(quadruplets)


def centroid_triplet(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, margin: float) -> float:
    """[d(x, own centroid without x) − min d(x, another class's centroid) + m]₊ of each embedding that has both."""
    rows, own = embeddings.tolist(), labels.tolist()
    others, classes = (rows, own) if ref_emb is None else (ref_emb.tolist(), ref_labels.tolist())

    def centroid(c: int, without: int = -1) -> Row:
        members = [x for j, x in enumerate(others) if classes[j] == c and j != without]
        return [mean(list(column)) for column in zip(*members, strict=True)]

    costs = []
    for i, x in enumerate(rows):
        mine = centroid(own[i], i if ref_emb is None else -1)
        far = [squared(x, centroid(c)) for c in sorted(set(classes)) if c != own[i]]
        costs += [hinge(squared(x, mine) - min(far) + margin)] if mine and far else []
    return mean(costs)
