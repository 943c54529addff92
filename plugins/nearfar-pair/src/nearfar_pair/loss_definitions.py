"""What the losses compute, said slowly and plainly: the checks of ``nearfar.testing`` hold the losses to it.

Embeddings are (n, d) and labels (n,); ``ref_emb`` and ``ref_labels`` are None where the batch is compared with itself.
Each is written from its paper's formula with its default distance and reducer, in Python's floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

Row = list[float]
Measure = Callable[[Row, Row], float]
#: An anchor, what it is compared by with its positives, and with its negatives.
Sides = tuple[int, Row, Row]


def dot(x: Row, y: Row) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def unit(x: Row) -> Row:
    length = math.sqrt(dot(x, x))
    return [v / length for v in x]


def cosine(x: Row, y: Row) -> float:
    return dot(unit(x), unit(y))


def squared(x: Row, y: Row) -> float:
    return math.fsum((a - b) ** 2 for a, b in zip(unit(x), unit(y), strict=True))


def euclidean(x: Row, y: Row) -> float:
    return math.sqrt(squared(x, y))


def sides(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, measure: Measure) -> Iterator[Sides]:
    """Each anchor with the measures of its positives and of its negatives; an element is no positive of itself."""
    rows, own = embeddings.tolist(), labels.tolist()
    others = rows if ref_emb is None else ref_emb.tolist()
    classes = own if ref_emb is None else ref_labels.tolist()
    for i, row in enumerate(rows):
        s = [measure(row, other) for other in others]
        positives = [j for j, c in enumerate(classes) if c == own[i] and not (ref_emb is None and i == j)]
        yield i, [s[j] for j in positives], [s[j] for j, c in enumerate(classes) if c != own[i]]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def log_sum(values: list[float]) -> float:
    """log Σ exp, −∞ of nothing."""
    most = max(values, default=-math.inf)
    return most + math.log(math.fsum(math.exp(v - most) for v in values)) if values else most


def log_plus_one(x: float) -> float:
    """log(1 + exp(x))."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def hinge(x: float) -> float:
    return max(x, 0.0)


def non_zero_mean(values: list[float]) -> float:
    return mean([v for v in values if v > 0])


# ---- one cost for each pair


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


# ---- one cost for each anchor


def sup_con(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, temperature: float) -> float:
    """−1/|P| Σₚ log(exp(sₚ/τ) / Σₐ exp(sₐ/τ)) of each anchor, a over its positives and negatives."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        if near:
            total = log_sum([s / temperature for s in near + far])
            costs.append(mean([total - s / temperature for s in near]))
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


def nca(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, scale: float, objective: str) -> float:
    """−log p or 1 − p of each anchor, p the softmax of −c d over all others, summed over its positives."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, squared):
        if near:
            log_p = log_sum([-scale * d for d in near]) - log_sum([-scale * d for d in near + far])
            costs.append(-log_p if objective == "log" else 1 - math.exp(log_p))
    return mean(costs)


# ---- one cost for each positive of each anchor


def nt_xent(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, temperature: float, others: str) -> float:
    """−log(exp(sₚ/τ) / (exp(sₚ/τ) + Σₖ exp(sₖ/τ))) of each positive pair, k over its anchor's other pairs."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        for p, s in enumerate(near):
            rest = near[:p] + near[p + 1 :] if others == "all" else []
            costs.append(log_sum([k / temperature for k in [s, *rest, *far]]) - s / temperature)
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


def decoupled_contrastive(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, temperature: float) -> float:
    """−sₚ/τ + log Σₙ exp(sₙ/τ) of each positive pair."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        costs += [log_sum([n / temperature for n in far]) - s / temperature for s in near if far]
    return mean(costs)


# ---- ranks


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
    rank_temperature: float,
    temperature: float,
) -> float:
    """One minus the mean over k of Σₚ σ((k − rₚ)/τ₁) / min(k, |P|), rₚ a soft rank among all others."""
    costs = []
    for _, near, far in sides(embeddings, labels, ref_emb, ref_labels, cosine):
        ranks = []
        for p, s in enumerate(near):
            others = near[:p] + near[p + 1 :] + far
            ranks.append(1 + math.fsum(sigmoid((o - s) / temperature) for o in others))
        if near:
            shares = [math.fsum(sigmoid((k - r) / rank_temperature) for r in ranks) / min(k, len(near)) for k in ks]
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


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


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


# ---- the rest


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
