"""What similarities and miners compute, said slowly and plainly: the checks of ``nearfar.testing`` hold parts to it."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "atss",
    "ciou",
    "diou",
    "giou",
    "hard_negative_ratio",
    "hungarian",
    "iou",
    "max_iou",
    "ohem",
    "probiou",
    "simota",
    "task_aligned",
]

Box = Sequence[float]
Measure = Callable[[Box, Box], float]
Pairs = list[tuple[int, int]]


def iou(a: Box, b: Box, box_format: str = "xyxy") -> float:
    """|A ∩ B| / |A ∪ B|."""
    a, b = _corners(a, box_format), _corners(b, box_format)
    shared = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - shared
    return shared / union if union else float(a == b)


def giou(a: Box, b: Box, box_format: str = "xyxy") -> float:
    """IoU − |C − A ∪ B| / |C|, where |A ∪ B| = (|A| + |B|) / (1 + IoU)."""
    overlap = iou(a, b, box_format)
    a, b = _corners(a, box_format), _corners(b, box_format)
    union, hull = (_area(a) + _area(b)) / (1 + overlap), _area(_hull(a, b))
    return overlap - (hull - union) / hull


def diou(a: Box, b: Box, box_format: str = "xyxy") -> float:
    """IoU − ρ² / c²."""
    overlap = iou(a, b, box_format)
    a, b = _corners(a, box_format), _corners(b, box_format)
    hull = _hull(a, b)
    apart = math.dist(((a[0] + a[2]) / 2, (a[1] + a[3]) / 2), ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2))
    return overlap - (apart / math.dist(hull[:2], hull[2:])) ** 2


def ciou(a: Box, b: Box, box_format: str = "xyxy") -> float:
    """DIoU − α v."""
    overlap, value = iou(a, b, box_format), diou(a, b, box_format)
    a, b = _corners(a, box_format), _corners(b, box_format)
    v = (2 / math.pi * (math.atan((a[2] - a[0]) / (a[3] - a[1])) - math.atan((b[2] - b[0]) / (b[3] - b[1])))) ** 2
    return value - (v / (1 - overlap + v) * v if v else 0.0)


def probiou(a: Box, b: Box) -> float:
    """1 − H, by the covariances of both boxes and the matrix that is their sum."""
    (p, q, r), (s, t, u) = _covariance(a), _covariance(b)
    first, second, cross = p + s, q + t, r + u
    determinant = first * second - cross**2
    x, y = a[0] - b[0], a[1] - b[1]
    apart = (second * x**2 - 2 * cross * x * y + first * y**2) / determinant / 4
    shapes = math.log(determinant / (4 * math.sqrt((p * q - r**2) * (s * t - u**2)))) / 2
    return 1 - math.sqrt(1 - math.exp(-(apart + shapes)))


# ---- matchers: pairs of a prediction and a target; ``distance`` is small for near


def max_iou(
    pred_boxes: list[Box],
    target_boxes: list[Box],
    distance: Measure,
    positive: float,
    negative: float,
    low_quality: float | None,
) -> Pairs:
    """Each prediction with the target nearest to it, near enough or nearest to some target."""
    near = [[-distance(p, t) for t in target_boxes] for p in pred_boxes]
    best = [max(column) for column in zip(*near, strict=True)]
    found = []
    for i, row in enumerate(near):
        own = row.index(max(row))
        forced = low_quality is not None and any(s == b > low_quality for s, b in zip(row, best, strict=True))
        if row[own] >= positive or forced:
            found.append((i, own))
    return found


def atss(pred_boxes: list[Box], target_boxes: list[Box], levels: list[int], distance: Measure, k: int) -> Pairs:
    """By a threshold for each target, from the anchors of each level nearest to its centre."""
    taken: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for j, target in enumerate(target_boxes):
        near = []
        for level in sorted(set(levels)):
            places = [i for i, own in enumerate(levels) if own == level]
            near += sorted(places, key=lambda i: math.dist(_centre(pred_boxes[i]), _centre(target)))[:k]
        scores = [-distance(pred_boxes[i], target) for i in near]
        least = statistics.mean(scores) + (statistics.stdev(scores) if len(scores) > 1 else 0)
        for i, score in zip(near, scores, strict=True):
            if score >= least and _holds(target, _centre(pred_boxes[i])):
                taken[i].append((-score, j))
    return [(i, min(each)[1]) for i, each in taken.items()]


def task_aligned(
    pred_boxes: list[Box],
    target_boxes: list[Box],
    logits: list[list[float]],
    targets: list[int],
    distance: Measure,
    k: int,
    alpha: float,
    beta: float,
) -> Pairs:
    """The k predictions of greatest p^α s^β that a target holds; the nearest target of those that take one."""
    taken: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for j, (target, label) in enumerate(zip(target_boxes, targets, strict=True)):
        held = []
        for i, box in enumerate(pred_boxes):
            near = max(-distance(box, target), 0.0)
            aligned = _sigmoid(logits[i][label]) ** alpha * near**beta
            if _holds(target, _centre(box)) and aligned > 0:
                held.append((aligned, near, i))
        for _, near, i in sorted(held, reverse=True)[:k]:
            taken[i].append((-near, j))
    return [(i, min(each)[1]) for i, each in taken.items()]


def simota(
    pred_boxes: list[Box],
    target_boxes: list[Box],
    logits: list[list[float]],
    targets: list[int],
    strides: list[float],
    distance: Measure,
    top: int,
    weight: float,
    radius: float,
) -> Pairs:
    """The cheapest predictions of each target, as many as the similarities of the best add up to."""
    inside, both = {}, {}
    for (i, box), (j, target) in itertools.product(enumerate(pred_boxes), enumerate(target_boxes)):
        x, y = _centre(box)
        across, down = _centre(target)
        held, central = _holds(target, (x, y)), max(abs(x - across), abs(y - down)) < radius * strides[i]
        inside[i, j], both[i, j] = held or central, held and central
    rows = [i for i in range(len(pred_boxes)) if any(inside[i, j] for j in range(len(target_boxes)))]
    taken: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for j, (target, label) in enumerate(zip(target_boxes, targets, strict=True)):
        near = {i: max(-distance(pred_boxes[i], target), 0.0) for i in rows}
        cost = {}
        for i in rows:
            chances = [_sigmoid(z) if c == label else 1 - _sigmoid(z) for c, z in enumerate(logits[i])]
            entropy = -math.fsum(map(math.log, chances))
            cost[i] = entropy - weight * math.log(max(near[i], 1e-8)) + (0 if both[i, j] else 1e5)
        wanted = max(1, math.floor(math.fsum(sorted(near.values(), reverse=True)[:top])))
        for i in sorted(rows, key=cost.__getitem__)[:wanted]:
            taken[i].append((cost[i], j))
    return [(i, min(each)[1]) for i, each in taken.items()]


def hungarian(
    pred_boxes: list[Box],
    target_boxes: list[Box],
    logits: list[list[float]],
    targets: list[int],
    distance: Measure,
    class_weight: float,
    box_weight: float,
    overlap_weight: float,
    activation: str,
) -> Pairs:
    """The cheapest of all ways to give each target a prediction of its own, found by dynamic programming."""

    def cost(i: int, j: int) -> float:
        z, label = logits[i], targets[j]
        score = _sigmoid(z[label])
        if activation == "softmax":
            score = math.exp(z[label]) / math.fsum(map(math.exp, z))
        apart = math.fsum(abs(a - b) for a, b in zip(pred_boxes[i], target_boxes[j], strict=True))
        return overlap_weight * distance(pred_boxes[i], target_boxes[j]) + box_weight * apart - class_weight * score

    # Of so many predictions, the cheapest pairs of a set of targets: each more prediction is left out, or takes one.
    best: dict[frozenset[int], tuple[float, Pairs]] = {frozenset(): (0.0, [])}
    for i in range(len(pred_boxes)):
        longer = dict(best)
        for (done, (price, pairs)), j in itertools.product(best.items(), range(len(target_boxes))):
            if j not in done:
                more = price + cost(i, j), [*pairs, (i, j)]
                longer[done | {j}] = min(longer.get(done | {j}, (math.inf, [])), more)
        best = longer
    return min((len(done) * -1, price, pairs) for done, (price, pairs) in best.items())[2]


# ---- miners of elements: the places that are kept


def ohem(
    values: Sequence[float],
    positives: Sequence[bool],
    groups: Sequence[int] | None = None,
    count: int | None = None,
    share: float | None = None,
) -> list[int]:
    """The greatest of each group."""
    kept: list[int] = []
    for places in _grouped(range(len(values)), groups):
        most = len(places) if count is None else count
        if share is not None:
            most = min(most, math.ceil(share * len(places) - 1e-9))
        kept += sorted(places, key=lambda i: -values[i])[:most]
    return kept


def hard_negative_ratio(
    values: Sequence[float],
    positives: Sequence[bool],
    groups: Sequence[int] | None = None,
    ratio: float = 3.0,
    minimum: int = 0,
) -> list[int]:
    """Every positive of each group, and the greatest negatives."""
    kept: list[int] = []
    for places in _grouped(range(len(values)), groups):
        own = [i for i in places if positives[i]]
        others = sorted((i for i in places if not positives[i]), key=lambda i: -values[i])
        kept += own + others[: max(math.floor(ratio * len(own)), minimum)]
    return kept


def _grouped(places: Iterable[int], groups: Sequence[int] | None) -> list[list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for i in places:
        found[0 if groups is None else groups[i]].append(i)
    return list(found.values())


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _holds(box: Box, point: tuple[float, float]) -> bool:
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


def _corners(box: Box, box_format: str) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2)."""
    a, b, c, d = box
    if box_format == "xywh":
        return a, b, a + c, b + d
    if box_format == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return (-a, -b, c, d) if box_format == "ltrb" else (a, b, c, d)


def _hull(a: Box, b: Box) -> tuple[float, float, float, float]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _covariance(box: Box) -> tuple[float, float, float]:
    """The variances along x and y, and the covariance, of points spread evenly over a rotated box."""
    _, _, width, height, angle = box
    along, across = width**2 / 12, height**2 / 12
    cosine, sine = math.cos(angle), math.sin(angle)
    return (
        along * cosine**2 + across * sine**2,
        along * sine**2 + across * cosine**2,
        (along - across) * cosine * sine,
    )
