"""Suppression: torchvision's greedy result, and every other against a plain loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import ops

import nearfar
from nearfar.errors import ArgumentError, InputError, NearfarWarning
from nearfar.registry import default_registry
from nearfar_iou.suppression import cluster_nms, diou_nms, matrix_nms, nms, soft_nms, weighted_nms
from nearfar_iou.suppression.greedy import BLOCK


def detections(n: int = 60, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = 60 * torch.rand(n, 2, generator=generator, dtype=torch.float64)
    side = 5 + 40 * torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return torch.cat((corner, corner + side), 1).to(dtype), torch.rand(n, generator=generator).to(dtype)


def whole(n: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Boxes of whole numbers: many similarities, and many scores, are exactly equal."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 8, (n, 2), generator=generator)
    side = torch.randint(1, 7, (n, 2), generator=generator)
    return torch.cat((corner, corner + side), 1).to(dtype), torch.randint(0, 9, (n,), generator=generator).to(
        dtype
    ) / 10


def table(name: str, boxes: Tensor) -> list[list[float]]:
    matrix: Tensor = nearfar.create_distance(name)(boxes)
    return matrix.tolist()


def by_score(scores: Tensor) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: (-float(scores[i]), i))


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float, name: str = "iou") -> list[int]:
    near, kept = table(name, boxes), []
    for i in by_score(scores):
        if not any(near[k][i] > threshold for k in kept):
            kept.append(i)
    return kept


# ---- greedy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 1 / 3])
@pytest.mark.parametrize("seed", range(3))
def test_greedy_suppression_is_torchvisions_ties_and_all(dtype, threshold, seed) -> None:
    for boxes, scores in (detections(3 * BLOCK + 5, seed, dtype), whole(2 * BLOCK + 1, seed, dtype)):
        expected = ops.nms(boxes, scores, threshold)
        assert torch.equal(nms(boxes, scores, threshold), expected)
        assert torch.equal(cluster_nms(boxes, scores, threshold), expected)


def test_a_similarity_exactly_at_the_threshold_does_not_suppress() -> None:
    boxes, scores = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1]]), torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.5).tolist() == ops.nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert nms(boxes, scores, math.nextafter(0.5, 0)).tolist() == [0]


def test_a_threshold_between_two_numbers_of_float32_is_not_rounded_up() -> None:
    # 0.1 in float32 is greater than 0.1, and torchvision compares it with 0.1.
    boxes, scores = torch.tensor([[0.0, 0, 10, 1], [0, 0, 1, 1]]), torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.1).tolist() == ops.nms(boxes, scores, 0.1).tolist() == [0]


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
@pytest.mark.parametrize("seed", range(3))
def test_on_any_similarity_it_is_a_plain_loop(name, seed) -> None:
    boxes, scores = detections(90, seed)
    distance = nearfar.create_distance(name)
    expected = plain_nms(boxes, scores, 0.2, name)
    assert nms(boxes, scores, 0.2, distance=distance).tolist() == expected
    assert cluster_nms(boxes, scores, 0.2, distance=distance).tolist() == expected
    if name == "diou":
        assert diou_nms(boxes, scores, 0.2).tolist() == expected


def test_rotated_boxes_are_suppressed_by_a_similarity_of_theirs() -> None:
    boxes, scores = detections(40)
    x1, y1, x2, y2 = boxes.unbind(1)
    rotated = torch.stack((x1, y1, x2 - x1, y2 - y1, torch.linspace(-2, 2, 40, dtype=torch.float64)), 1)
    found = nms(rotated, scores, 0.3, distance=nearfar.create_distance("probiou"))
    assert found.tolist() == plain_nms(rotated, scores, 0.3, "probiou")
    assert len(found) < 40


@pytest.mark.parametrize("function", [nms, cluster_nms, soft_nms, matrix_nms])
def test_boxes_that_differ_by_their_angle_alone_are_told_apart(function: Callable[..., Any]) -> None:
    # The first two are nearly one box, the third crosses them.
    side = torch.tensor([[5.0, 5, 8, 1, 0], [5, 5, 8, 1, 0.02], [5, 5, 8, 1, math.pi / 2]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    found = function(side, scores, distance=nearfar.create_distance("probiou"))
    if function in (nms, cluster_nms):
        assert found.tolist() == [0, 2]
    else:
        lowered = dict(zip(found[0].tolist(), found[1].tolist(), strict=True))
        assert lowered.get(1, 0) < 0.4 < 0.6 < lowered[2] < lowered[0] == scores[0]


@pytest.mark.parametrize("function", [nms, cluster_nms])
def test_classes_suppress_their_own_alone(function: Callable[..., Tensor]) -> None:
    for boxes, scores in (detections(300, 1, torch.float32), whole(300, 1)):
        classes = torch.randint(0, 4, (300,), generator=torch.Generator().manual_seed(2))
        kept = function(boxes, scores, 0.4, classes=classes)
        expected = [ops.nms(boxes[own], scores[own], 0.4) for c in range(4) for own in [(classes == c)]]
        places = torch.cat([(classes == c).nonzero()[:, 0][found] for c, found in enumerate(expected)])
        assert sorted(kept.tolist()) == sorted(places.tolist())
        assert kept.tolist() == [i for i in by_score(scores) if i in set(places.tolist())]
    assert torch.equal(kept.sort().values, ops.batched_nms(boxes, scores, classes, 0.4).sort().values)


def test_a_long_row_of_boxes_that_suppress_each_other_in_turn_keeps_every_second() -> None:
    low = torch.arange(40.0)
    boxes = torch.stack((low, torch.zeros(40), low + 2, torch.ones(40)), 1)
    scores = torch.linspace(1, 0, 40)
    expected = list(range(0, 40, 2))
    assert nms(boxes, scores, 0.2).tolist() == cluster_nms(boxes, scores, 0.2).tolist() == expected


def test_points_inverted_and_huge_boxes_are_one_with_their_equals() -> None:
    boxes = torch.tensor([
        [5.0, 5, 5, 5], [5, 5, 5, 5], [6, 6, 6, 6],  # points, two of them equal
        [4, 4, 2, 2], [3, 3, 3, 3],  # inverted, so a point at its middle
        [0, 0, 10, 10], [0, 0, 10, 10.5], [1e30, 0, 1.5e30, 1e30], [1e30, 0, 1.5e30, 1e30],
    ])  # fmt: skip
    scores = torch.linspace(1, 0.1, 9)
    for function in (nms, cluster_nms):
        with pytest.warns(NearfarWarning, match="1 of 9 boxes, the first at 3, have an end before their start"):
            assert function(boxes, scores, 0.5).tolist() == [0, 2, 3, 5, 7]
        with pytest.warns(NearfarWarning, match="1 of 7 boxes"):
            assert function(boxes[:7], scores[:7], 0.5).tolist() == [0, 2, 3, 5]


def test_half_precision_is_compared_in_float32() -> None:
    boxes, scores = whole(200, 3)
    assert torch.equal(nms(boxes.half(), scores, 0.5), nms(boxes, scores, 0.5))
    assert torch.equal(nms(boxes.bfloat16(), scores.double(), 0.5), nms(boxes, scores.double(), 0.5))


# ---- soft


def plain_soft(near: list[list[float]], scores: Tensor, decay: str, sigma: float, threshold: float, least: float):
    left, own, kept = set(range(len(scores))), scores.tolist(), []
    while left := {i for i in left if own[i] >= least}:
        best = max(left, key=lambda i: (own[i], -i))
        kept.append((best, own[best]))
        left.remove(best)
        for i in left:
            s = max(near[best][i], 0.0)
            own[i] *= math.exp(-(s**2) / sigma) if decay == "gaussian" else (1 - s if s > threshold else 1)
    return sorted(kept, key=lambda each: -each[1])


@pytest.mark.parametrize("decay", ["gaussian", "linear"])
@pytest.mark.parametrize("name", ["iou", "diou"])
def test_soft_suppression_lowers_scores_as_a_plain_loop_does(decay, name) -> None:
    boxes, scores = detections(60, 4)
    expected = plain_soft(table(name, boxes), scores, decay, 0.5, 0.3, 0.05)
    kept, lowered = soft_nms(boxes, scores, decay=decay, min_score=0.05, distance=nearfar.create_distance(name))
    assert kept.tolist() == [place for place, _ in expected]
    torch.testing.assert_close(lowered, torch.tensor([score for _, score in expected], dtype=torch.float64))
    assert 0 < len(kept) < 60


@pytest.mark.parametrize("decay", ["gaussian", "linear"])
@pytest.mark.parametrize(("n", "name"), [(60, "iou"), (400, "iou"), (60, "giou"), (60, "diou")])
def test_matrix_suppression_is_the_formula_of_its_paper_on_any_similarity(decay, n, name) -> None:
    boxes, scores = detections(n, 5)
    near, order = [[max(each, 0.0) for each in row] for row in table(name, boxes)], by_score(scores)

    def f(overlap: float) -> float:
        return math.exp(-(overlap**2) / 0.5) if decay == "gaussian" else 1 - overlap

    most = {j: max((near[k][j] for k in order[:place]), default=0.0) for place, j in enumerate(order)}
    expected = {
        j: float(scores[j]) * min((f(near[i][j]) / f(most[i]) for i in order[:place]), default=1.0)
        for place, j in enumerate(order)
    }
    kept, lowered = matrix_nms(boxes, scores, decay=decay, min_score=0.05, distance=nearfar.create_distance(name))
    left = sorted((j for j in expected if expected[j] >= 0.05), key=lambda j: -expected[j])
    assert kept.tolist() == left
    torch.testing.assert_close(lowered, torch.tensor([expected[j] for j in left], dtype=torch.float64))


def test_equal_boxes_are_lowered_and_finite() -> None:
    boxes, scores = torch.tensor([[0.0, 0, 4, 4]]).repeat(3, 1), torch.tensor([0.9, 0.8, 0.7])
    for decay in ("gaussian", "linear"):
        for function in (soft_nms, matrix_nms):
            kept, lowered = function(boxes, scores, decay=decay)
            assert lowered.isfinite().all()
            assert kept[0] == 0
            assert lowered[0] == scores[0]
            assert (lowered[1:] < scores[kept[1:]]).all()


# ---- weighted


@pytest.mark.parametrize("name", ["iou", "diou"])
def test_what_is_suppressed_moves_what_suppresses_it(name) -> None:
    boxes, scores = detections(80, 6)
    near, order = table(name, boxes), by_score(scores)
    kept = plain_nms(boxes, scores, 0.3, name)
    members: dict[int, list[int]] = {k: [k] for k in kept}
    for i in order:
        if i not in members:
            members[next(k for k in kept if near[k][i] > 0.3)].append(i)
    expected = []
    for k in kept:
        weights = torch.tensor([float(scores[m]) * max(near[k][m], 0) for m in members[k]], dtype=torch.float64)
        expected.append((boxes[members[k]] * weights[:, None]).sum(0) / weights.sum())
    found, moved = weighted_nms(boxes, scores, 0.3, distance=nearfar.create_distance(name))
    assert found.tolist() == kept
    torch.testing.assert_close(moved, torch.stack(expected))


def test_boxes_without_a_score_stay_where_they_are() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5]])
    kept, moved = weighted_nms(boxes, torch.zeros(2))
    assert kept.tolist() == [0]
    assert torch.equal(moved, boxes[:1])


# ---- of all of them


@pytest.mark.parametrize("function", [soft_nms, matrix_nms, weighted_nms])
def test_classes_are_each_suppressed_as_if_they_were_alone(function) -> None:
    boxes, scores = detections(60, 7)
    classes = torch.arange(60) % 3 * 7
    kept, found = function(boxes, scores, classes=classes)
    for label in (0, 7, 14):
        own = (classes == label).nonzero()[:, 0]
        places, alone = function(boxes[own], scores[own])
        mine = classes[kept] == label
        assert torch.equal(kept[mine], own[places])
        torch.testing.assert_close(found[mine], alone)


@pytest.mark.parametrize("function", [nms, diou_nms, cluster_nms, soft_nms, matrix_nms, weighted_nms])
def test_of_no_boxes_none_are_kept_and_wrong_ones_are_refused(function) -> None:
    boxes, scores = detections(5)
    for classes in (None, torch.zeros(0, dtype=torch.int64)):
        found = function(boxes[:0], scores[:0], classes=classes)
        assert len(found[0] if isinstance(found, tuple) else found) == 0
    with pytest.raises(InputError, match=r"\(n, 4\)"):
        function(boxes[:, :3], scores)
    with pytest.raises(InputError, match=r"scores must be a tensor \(5,\)"):
        function(boxes, scores[:4])
    with pytest.raises(InputError, match="no number"):
        function(boxes, scores * float("nan"))
    for broken in ("nan", "inf"):
        with pytest.raises(InputError, match="boxes hold what is no finite number"):
            function(torch.cat([boxes[:4], boxes[4:] + float(broken)]), scores)
    with pytest.raises(InputError, match=r"class ids \(5,\)"):
        function(boxes, scores, classes=torch.zeros(5))


@pytest.mark.parametrize("function", [nms, diou_nms, cluster_nms, soft_nms, matrix_nms, weighted_nms])
def test_boxes_of_another_format_are_told_where_they_are_suppressed(function) -> None:
    boxes = torch.tensor([[90.0, 90, 20, 20], [0, 0, 40, 40], [50, 10, 20, 30]])  # corners and sides
    with pytest.warns(
        NearfarWarning, match="2 of 3 boxes, the first at 0, .* read as xyxy, .* with that box_format"
    ) as told:
        function(boxes, torch.rand(3))
    assert told[0].filename == __file__
    if function is not diou_nms:
        function(boxes, torch.rand(3), distance=nearfar.create_distance("iou", box_format="xywh"))


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou", "probiou"])
@pytest.mark.parametrize("function", [nms, cluster_nms, soft_nms, weighted_nms])
def test_a_threshold_that_no_similarity_is_beyond_is_refused_and_one_at_an_end_is_not(function, name) -> None:
    spec = default_registry().resolve("distance", name).spec
    distance = nearfar.create_distance(name)
    assert (distance.lowest, 1.0) == spec.range
    if name == "probiou" and function is weighted_nms:
        distance = nearfar.create_distance("iou")
    boxes = torch.tensor([[0.0, 0, 2, 2, 0], [1, 1, 3, 3, 0.5]])[:, : distance.width]
    for threshold in (1.01, 50, spec.range[0] - 0.01):
        with pytest.raises(ArgumentError, match=r"threshold lies in .*\.\.1; got"):
            function(boxes, torch.ones(2), threshold=threshold, distance=distance)
    for threshold in spec.range:
        function(boxes, torch.ones(2), threshold=threshold, distance=distance)


def test_arguments_that_mean_nothing_are_refused() -> None:
    boxes, scores = detections(5)
    with pytest.raises(ArgumentError, match=r"such as create_distance\('giou'\); got 'giou'"):
        nms(torch.rand(5, 4), torch.rand(5), distance="giou")
    with pytest.raises(ArgumentError, match="threshold"):
        nms(boxes, scores, float("nan"))
    with pytest.raises(ArgumentError, match="'gaussian' or 'linear'"):
        soft_nms(boxes, scores, decay="cubic")
    with pytest.raises(ArgumentError, match="sigma"):
        matrix_nms(boxes, scores, sigma=0.0)
    with pytest.raises(InputError, match="weights"):
        weighted_nms(boxes, -scores)
    with pytest.raises(InputError, match="rotated"):
        weighted_nms(torch.rand(5, 5), torch.rand(5), distance=nearfar.create_distance("probiou"))


def test_a_gradient_is_neither_needed_nor_kept() -> None:
    boxes, scores = detections(10)
    assert not weighted_nms(boxes.requires_grad_(), scores.requires_grad_())[1].requires_grad
