"""Matchers and miners of elements: beside other implementations, and composed with losses."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher as TheirMatcher
from torchvision.ops import box_iou

import nearfar
from nearfar.errors import ArgumentError, InputError, RecipeError
from nearfar.nn import ElementMiner
from nearfar.testing.scene import to_match
from nearfar_iou.diou import DIoU
from nearfar_iou.focal import Focal
from nearfar_iou.miners.hungarian import Hungarian
from nearfar_iou.miners.max_iou import MaxIoU
from nearfar_iou.miners.ohem import OHEM
from nearfar_iou.miners.task_aligned import TaskAligned
from nearfar_iou.quality_focal import QualityFocal

MATCHERS = ["max_iou", "atss(k=3)", "task_aligned", "simota", "hungarian"]


def scene(n: int = 30, seed: int = 0) -> dict[str, Tensor]:
    made = to_match(n, seed=seed)
    for name in ("pred_boxes", "logits"):
        made[name].requires_grad_()
    return {name: made[name] for name in ("pred_boxes", "target_boxes", "logits", "targets")}


# ---- beside others


@pytest.mark.parametrize("low_quality", [None, 0.0])
@pytest.mark.parametrize("seed", range(5))
def test_thresholds_match_as_torchvisions_matcher_does(low_quality, seed) -> None:
    given = scene(40, seed)
    pred, target = given["pred_boxes"].detach(), given["target_boxes"]
    target = target[box_iou(target, pred).amax(1) > 0]  # of one that nothing overlaps theirs makes everything positive
    theirs = TheirMatcher(0.5, 0.3, allow_low_quality_matches=low_quality is not None)(box_iou(target, pred))
    predictions, targets, ignored = MaxIoU(0.5, 0.3, low_quality)(pred, target)
    found = torch.full((40,), TheirMatcher.BELOW_LOW_THRESHOLD)
    found[predictions], found[ignored] = targets, TheirMatcher.BETWEEN_THRESHOLDS
    assert torch.equal(found, theirs)


@pytest.mark.parametrize("seed", range(4))
def test_bipartite_matching_costs_least_of_all_permutations(seed) -> None:
    given = {name: value.detach() for name, value in scene(6, seed).items()}
    predictions, targets, _ = Hungarian()(given["pred_boxes"], given["target_boxes"], logits=given["logits"],
                                          targets=given["targets"])  # fmt: skip
    giou = nearfar.create_distance("giou")(given["pred_boxes"], given["target_boxes"])
    apart = (given["pred_boxes"][:, None] - given["target_boxes"]).abs().sum(2)
    cost = 5 * apart - 2 * giou - given["logits"].softmax(1)[:, given["targets"]]
    m = len(given["target_boxes"])
    least = min(sum(cost[i, j] for j, i in enumerate(each)) for each in itertools.permutations(range(6), m))
    assert len(predictions) == m
    assert cost[predictions, targets].sum().item() == pytest.approx(float(least))


def test_a_target_that_nothing_overlaps_has_no_match() -> None:
    pred, target = torch.tensor([[0.0, 0, 2, 2], [9, 9, 11, 11]]), torch.tensor([[50.0, 50, 60, 60]])
    assert [len(index) for index in MaxIoU()(pred, target)] == [0, 0, 0]


def test_anchors_are_matched_in_place_of_predictions() -> None:
    anchors, target = torch.tensor([[0.0, 0, 2, 2], [5, 5, 7, 7]]), torch.tensor([[5.0, 5, 7, 7.5]])
    matches = MaxIoU().match(anchors.flip(0), target, anchors=anchors)
    assert matches.predictions.tolist() == [1]
    assert matches.quality.tolist() == [0.0]  # how near the prediction is, not its anchor


def test_what_is_aligned_counts_by_how_well_and_the_best_by_how_near_the_nearest_is() -> None:
    given = {name: value.detach() for name, value in scene(40, 3).items()}
    matches = TaskAligned().match(*given.values())
    near = box_iou(given["pred_boxes"], given["target_boxes"])
    score = given["logits"].sigmoid()[:, given["targets"]]
    assert matches.weights is not None
    for target in matches.targets.unique():
        own = matches.targets == target
        places = matches.predictions[own]
        aligned = (score * near**6)[places, target]
        expected = aligned / aligned.max() * near[places, target].max()
        torch.testing.assert_close(matches.weights[own], expected)


def test_predictions_of_one_image_are_not_matched_with_targets_of_another() -> None:
    box = torch.tensor([[0.0, 0, 2, 2]])
    matcher = MaxIoU()
    groups = {"pred_groups": torch.tensor([0]), "target_groups": torch.tensor([1])}
    assert len(matcher(box, box)[0]) == 1
    assert len(matcher(box, box, **groups)[0]) == 0


# ---- composed


@pytest.mark.parametrize("matcher", MATCHERS)
def test_a_detectors_criterion_is_what_its_losses_are_of_the_matches(matcher: str) -> None:
    given = scene()
    criterion = nearfar.compose("focal + 2.0 * diou", miner=matcher)
    value = criterion(**given)
    made = nearfar.create_miner(matcher)
    options = {name: given[name] for name in ("logits", "targets") if name in made.optional_inputs}
    matches = made.match(*(given[name] for name in made.inputs), **options)
    i, j = matches.predictions, matches.targets
    weight = torch.ones(len(i), dtype=torch.float64) if matches.weights is None else matches.weights
    dense = torch.zeros_like(given["logits"])
    dense[i, given["targets"][j]] = weight
    counted = torch.ones(30, dtype=torch.float64)
    counted[matches.ignored] = 0
    divisor = max(float(weight.sum()), 1.0)
    boxes = DIoU()(given["pred_boxes"][i], given["target_boxes"][j], weight, divisor)
    expected = Focal()(given["logits"], dense, counted, divisor) + 2 * boxes
    torch.testing.assert_close(value, expected)
    found = torch.autograd.grad(value, (given["pred_boxes"], given["logits"]))
    torch.testing.assert_close(found, torch.autograd.grad(expected, (given["pred_boxes"], given["logits"])))


def test_terms_that_match_alike_are_matched_once() -> None:
    criterion = nearfar.compose("focal + 2.0 * ciou + l1(miner=max_iou(positive=0.7))", miner=None)
    assert len(criterion.miners) == 1
    criterion = nearfar.compose("focal(miner=max_iou) + 2.0 * ciou(miner=max_iou) + l1(miner=max_iou(positive=0.7))")
    first, second, third = criterion.miners.values()
    assert first is second
    assert third is not first
    calls: list[object] = []
    first.match = lambda *inputs, **options: calls.append(inputs) or MaxIoU().match(*inputs, **options)
    criterion(**scene())
    assert len(calls) == 1


def test_without_a_target_everything_is_background() -> None:
    given = scene() | {"target_boxes": torch.zeros(0, 4).double(), "targets": torch.zeros(0, dtype=torch.int64)}
    criterion = nearfar.compose("focal + ciou", miner="max_iou")
    value = criterion(**given)
    assert criterion.last["ciou"] == 0
    torch.testing.assert_close(criterion.last["focal"], Focal(reducer=nearfar.create_reducer("sum"))(
        given["logits"], torch.zeros_like(given["logits"])
    ).detach())  # fmt: skip
    value.backward()
    assert given["pred_boxes"].grad.count_nonzero() == 0


def test_qualities_are_how_near_the_matched_boxes_are() -> None:
    given = scene()
    matches = MaxIoU().match(given["pred_boxes"], given["target_boxes"])
    dense = torch.zeros_like(given["logits"])
    near = box_iou(given["pred_boxes"].detach(), given["target_boxes"])
    dense[matches.predictions, given["targets"][matches.targets]] = near[matches.predictions, matches.targets]
    counted = torch.ones(30, dtype=torch.float64).index_fill(0, matches.ignored, 0)
    expected = QualityFocal()(given["logits"], dense, counted, len(matches.predictions))
    torch.testing.assert_close(nearfar.compose("quality_focal", miner="max_iou")(**given), expected)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal(activation='softmax')"])
def test_the_background_is_a_class_of_a_softmax(loss: str) -> None:
    given = scene()
    given["targets"] = given["targets"].clamp_min(1)
    value = nearfar.compose(loss, miner="hungarian")(**given)
    i, j, _ = Hungarian()(given["pred_boxes"], given["target_boxes"], logits=given["logits"], targets=given["targets"])
    classes = torch.zeros(30, dtype=torch.int64)
    classes[i] = given["targets"][j]
    expected = nearfar.create_loss(loss)(given["logits"], classes, None, len(i))
    torch.testing.assert_close(value, expected)


def test_each_image_counts_the_same_reduced_per_group() -> None:
    given = scene() | {"pred_groups": torch.arange(30) // 15, "target_groups": torch.arange(10) // 5}
    value = nearfar.compose("diou(reducer=per_group)", miner="max_iou")(
        *(given[name] for name in ("pred_boxes", "target_boxes")),
        pred_groups=given["pred_groups"],
        target_groups=given["target_groups"],
    )
    means = []
    for image in (0, 1):
        pred, target = given["pred_boxes"][given["pred_groups"] == image], given["target_boxes"][5 * image :][:5]
        i, j, _ = MaxIoU()(pred, target)
        means.append(DIoU()(pred[i], target[j]))
    torch.testing.assert_close(value, torch.stack(means).mean())


def test_weights_of_targets_and_a_normaliser_go_to_each_loss_by_name() -> None:
    given = scene()
    weights = torch.linspace(0, 1, 10, dtype=torch.float64)
    criterion = nearfar.compose("ciou", miner="max_iou")
    i, j, _ = MaxIoU()(given["pred_boxes"], given["target_boxes"])
    expected = nearfar.create_loss("ciou")(given["pred_boxes"][i], given["target_boxes"][j], weights[j], 7.0)
    found = criterion(given["pred_boxes"], given["target_boxes"], box_weights=weights, box_normalizer=7.0)
    torch.testing.assert_close(found, expected)
    plain = nearfar.compose("focal + 2.0 * ciou")
    dense = (torch.rand(30, 6, generator=torch.Generator().manual_seed(0)) < 0.1).double()
    inputs = {"logits": given["logits"], "targets": dense, "pred_boxes": given["target_boxes"] + 0.5,
              "target_boxes": given["target_boxes"]}  # fmt: skip
    found = plain(**inputs, box_weights=weights, logit_normalizer=5.0)
    expected = Focal()(given["logits"], dense, None, 5.0)
    expected = expected + 2 * nearfar.create_loss("ciou")(given["target_boxes"] + 0.5, given["target_boxes"], weights)
    torch.testing.assert_close(found, expected)
    with pytest.raises(InputError, match="takes no input 'box_wieghts'"):
        plain(**inputs, box_wieghts=weights)


# ---- elements


def test_the_hardest_of_each_image_are_kept() -> None:
    logits = torch.tensor([1.0, 5, 3, -2, 0, 4], dtype=torch.float64, requires_grad=True)
    targets, images = torch.zeros(6, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1])
    criterion = nearfar.compose("focal(miner=ohem(count=2), reducer=sum)")
    value = criterion(logits, targets, logit_groups=images)
    value.backward()
    assert logits.grad.nonzero()[:, 0].tolist() == [1, 2, 4, 5]
    torch.testing.assert_close(value, Focal(reducer=nearfar.create_reducer("sum"))(logits[[1, 2, 4, 5]], targets[:4]))


def test_ssd_keeps_three_negatives_for_each_anchor_that_is_matched_and_divides_by_these() -> None:
    given = scene(60, 1)
    logits = given["logits"][:, 0].detach().requires_grad_()
    criterion = nearfar.compose("cross_entropy(miner=hard_negative_ratio(miner=max_iou(positive=0.5, negative=0.5)))")
    two = torch.stack((torch.zeros_like(logits), logits), 1)
    value = criterion(
        logits=two,
        targets=torch.ones(20, dtype=torch.int64),
        pred_boxes=given["pred_boxes"],
        target_boxes=given["target_boxes"],
    )
    i, _, _ = MaxIoU(0.5, 0.5)(given["pred_boxes"], given["target_boxes"])
    positive = torch.zeros(60, dtype=torch.bool).index_fill(0, i, True)
    costs = torch.nn.functional.cross_entropy(two, positive.long(), reduction="none")
    kept = min(3 * len(i), 60 - len(i))
    negatives = costs[~positive].sort(descending=True).values[:kept]
    torch.testing.assert_close(value, (costs[positive].sum() + negatives.sum()) / len(i))


@pytest.mark.parametrize("loss", ["triplet", "contrastive", "sup_con", "softmax", "arcface", "proxy_nca", "center"])
def test_miners_of_elements_work_on_losses_of_embeddings(loss: str) -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(24, 8, generator=generator, requires_grad=True)
    labels = torch.arange(24) % 4
    context = {"num_classes": 4, "embedding_size": 8}
    torch.manual_seed(0)
    every = nearfar.compose(loss, reducer="none", **context)(embeddings, labels)
    torch.manual_seed(0)
    value = nearfar.compose(loss, reducer="mean", miner="ohem(count=5)", **context)(embeddings, labels)
    parts = every.values() if isinstance(every, dict) else [every]
    torch.testing.assert_close(value, sum(part.topk(5).values.mean() for part in parts))
    value.backward()
    assert embeddings.grad.count_nonzero() > 0


def test_of_pairs_so_many_negative_ones_are_kept_as_there_are_positive_ones() -> None:
    embeddings, labels = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4
    kept = nearfar.compose("contrastive(reducer=none, miner=hard_negative_ratio(ratio=2))")(embeddings, labels)
    every = nearfar.compose("contrastive(reducer=none)")(embeddings, labels)
    positive, negative = every.values()
    first, second = kept.values()
    assert torch.equal(first, positive)
    assert len(second) == 2 * len(positive) < len(negative)
    torch.testing.assert_close(second.sort().values, negative.sort().values[-len(second) :])


def test_a_miner_may_select_before_the_hardest_are_kept() -> None:
    embeddings, labels = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 4
    every = nearfar.compose("triplet(reducer=none)", miner="semihard")(embeddings, labels)
    value = nearfar.compose("triplet(reducer=mean)", miner="ohem(count=7, miner=semihard)")(embeddings, labels)
    torch.testing.assert_close(value, every.topk(7).values.mean())


def test_of_equal_costs_the_first_are_kept() -> None:
    loss = nearfar.create_loss("l1", reducer=nearfar.create_reducer("none"))
    loss.element_miner = OHEM(count=2)
    pred = torch.ones(5, 4, requires_grad=True)
    loss(pred, torch.zeros(5, 4)).sum().backward()
    assert pred.grad.any(1).tolist() == [True, True, False, False, False]


# ---- what does not go together


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("giou(miner=semihard)", "giou takes pred_boxes, target_boxes, and pair.semihard selects among embeddings"),
        ("focal(miner=all)", "focal takes logits, targets, and pair.all selects among embeddings"),
        ("giou(miner=ohem(miner=hard))", "giou takes pred_boxes, target_boxes, and pair.hard selects among embeddings"),
        ("triplet(miner=max_iou)", r"iou.max_iou matches boxes, and triplet takes embeddings, labels"),
        ("distribution_focal(miner=atss)", "iou.atss matches boxes, and distribution_focal takes distance_logits"),
        ("triplet(miner=hard_negative_ratio)", "hard_negative_ratio does not choose among triplet terms"),
        ("giou(miner=max_iou(distance=cosine))", "max_iou compares boxes, and core.cosine compares embeddings"),
        ("triplet(miner=hard(distance=iou))", "hard compares embeddings, and iou.iou compares boxes"),
        ("pml.histogram_loss(miner=ohem)", "reduces itself, so there are no terms for iou.ohem to choose among"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_made(recipe: str, message: str) -> None:
    problems = [str(problem) for problem in nearfar.Recipe.of(recipe).check()]
    assert any(message in problem for problem in problems), problems
    with warnings.catch_warnings(action="ignore"), pytest.raises(RecipeError):  # theirs has defects, too
        nearfar.compose(recipe)


def test_a_metric_miner_given_as_an_object_is_refused_too() -> None:
    with pytest.raises(RecipeError, match="selects among embeddings"):
        nearfar.compose("giou", miner=nearfar.create_miner("hard"))
    nearfar.compose("giou", miner=MaxIoU())


BOXES = [(matcher, name) for matcher in MATCHERS for name in ("pred_boxes", "target_boxes", "anchors")]
BOXES.remove(("hungarian", "anchors"))  # it takes none


@pytest.mark.parametrize(("matcher", "name"), BOXES)
def test_boxes_that_are_no_numbers_are_refused_rather_than_matched_with_nothing(matcher, name) -> None:
    given = {key: value.detach().clone() for key, value in scene().items()}
    if name == "anchors":
        given["anchors"] = given["pred_boxes"].clone()
    criterion = nearfar.compose("focal + giou", miner=matcher)
    criterion(**given)
    for broken in ("nan", "inf"):
        given[name][1, 2] = float(broken)
        with pytest.raises(InputError, match=f"{name} hold what is no finite number"):
            criterion(**given)


def test_what_is_wrong_with_a_call_is_said_by_name() -> None:
    given = scene()
    boxes = {name: given[name] for name in ("pred_boxes", "target_boxes")}
    with pytest.raises(InputError, match="needs targets, pred_boxes, target_boxes"):
        nearfar.compose("focal", miner="max_iou")(logits=given["logits"])
    with pytest.raises(InputError, match="pred_groups and target_groups are given together"):
        MaxIoU()(*boxes.values(), pred_groups=torch.zeros(30, dtype=torch.int64))
    with pytest.raises(InputError, match="takes no levels"):
        MaxIoU()(*boxes.values(), levels=torch.zeros(30))
    with pytest.raises(InputError, match="29 logits and 30 predicted boxes"):
        nearfar.compose("focal", miner="max_iou")(**given | {"logits": given["logits"][:29]})
    with pytest.raises(InputError, match="boxes were matched as xyxy, and CIoU takes cxcywh"):
        nearfar.compose("ciou(box_format='cxcywh')", miner="max_iou")(**boxes)
    with pytest.raises(InputError, match="boxes or logits are not finite"):
        Hungarian()(*boxes.values(), logits=given["logits"] * float("nan"), targets=given["targets"])
    with pytest.raises(ArgumentError, match="not rotated"):
        nearfar.create_miner("atss", distance=nearfar.create_distance("probiou"))
    with pytest.raises(InputError, match="positives from negatives"):
        nearfar.compose("l1", miner="hard_negative_ratio")(torch.rand(3, 4), torch.rand(3, 4))


def test_rotated_boxes_are_matched_by_a_similarity_of_theirs() -> None:
    target = torch.tensor([[0.0, 0, 4, 2, 0.3], [20, 20, 4, 2, 0.3]])
    pred = target.flip(0) + 0.1
    predictions, targets, _ = MaxIoU(distance=nearfar.create_distance("probiou"))(pred, target)
    assert (predictions.tolist(), targets.tolist()) == ([0, 1], [1, 0])
    value = nearfar.compose("kld", miner="max_iou(distance=probiou)")(pred, target)
    torch.testing.assert_close(value, nearfar.create_loss("kld")(pred, target.flip(0)))


def test_one_miner_of_elements_cannot_go_before_another() -> None:
    assert issubclass(OHEM, ElementMiner)
    with pytest.raises(ArgumentError, match="before another"):
        OHEM(miner=OHEM())


@pytest.mark.parametrize("loss", ["focal", "quality_focal", "varifocal"])
@pytest.mark.parametrize("matcher", ["max_iou", "atss", "hungarian"])
@pytest.mark.parametrize("count", [1, 3])
def test_each_target_box_has_a_class(loss, matcher, count):
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 9, 9]])
    criterion = nearfar.compose(f"{loss}(miner={matcher})")
    given = {"pred_boxes": boxes, "target_boxes": boxes[:2], "logits": torch.zeros(3, 4)}
    with pytest.raises(InputError, match="targets must have a row for each of 2 target_boxes"):
        criterion(**given, targets=torch.arange(count), **({"anchors": boxes} if matcher == "atss" else {}))
