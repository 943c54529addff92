"""A detector's criterion is one recipe: scores of all anchors, boxes of the positive ones, each divided as it wants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision import ops

import nearfar
from nearfar.errors import InputError
from nearfar_iou import plugin

RECIPE = "focal + 2.0 * ciou"


@pytest.fixture
def scene() -> dict[str, Tensor]:
    """Sixty anchors of three classes, eight of which are positive and have a box, in float64."""
    random = torch.Generator().manual_seed(0)
    targets = torch.zeros(60, 3, dtype=torch.float64)
    targets[torch.randperm(60, generator=random)[:8], torch.randint(3, (8,), generator=random)] = 1
    corners = torch.rand(8, 2, generator=random, dtype=torch.float64)
    truth = torch.cat([corners, corners + 0.2 + torch.rand(8, 2, generator=random, dtype=torch.float64)], 1)
    return {
        "logits": torch.randn(60, 3, generator=random, dtype=torch.float64, requires_grad=True),
        "targets": targets,
        "pred_boxes": (truth + 0.05 * torch.randn(8, 4, generator=random, dtype=torch.float64)).requires_grad_(),
        "target_boxes": truth,
    }


def theirs(scene: dict[str, Tensor], weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """torchvision's sums: of the scores, and of the boxes."""
    boxes = ops.complete_box_iou_loss(scene["pred_boxes"], scene["target_boxes"])
    scores = ops.sigmoid_focal_loss(scene["logits"], scene["targets"], alpha=0.25, gamma=2.0, reduction="sum")
    return scores, (boxes if weights is None else boxes * weights).sum()


def gradients(value: Tensor, scene: dict[str, Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(value, [scene["logits"], scene["pred_boxes"]]))


def test_over_the_number_of_positives_it_is_the_sum_of_torchvisions_two(scene: dict[str, Tensor]) -> None:
    criterion = nearfar.compose(RECIPE)
    value = criterion(**scene, logit_normalizer=8, box_normalizer=8)
    scores, boxes = theirs(scene)
    torch.testing.assert_close(value, (scores + 2 * boxes) / 8, rtol=1e-6, atol=0)
    torch.testing.assert_close(criterion.last["focal"], scores.detach() / 8, rtol=1e-12, atol=0)
    for ours, other in zip(gradients(value, scene), gradients((scores + 2 * boxes) / 8, scene), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-8)  # torchvision has an epsilon in the boxes' α


def test_each_term_has_a_normaliser_and_weights_of_its_own(scene: dict[str, Tensor]) -> None:
    criterion = nearfar.compose(RECIPE)
    weights = torch.linspace(0, 1, 8, dtype=torch.float64)
    scores, boxes = theirs(scene, weights)
    value = criterion(**scene, logit_normalizer=3, box_weights=weights, box_normalizer=5.0)
    torch.testing.assert_close(value, scores / 3 + 2 * boxes / 5, rtol=1e-6, atol=0)
    nothing = criterion(**scene, logit_weights=torch.zeros(60), box_weights=torch.zeros(8))
    assert nothing.item() == 0
    # Without any, scores are averaged over anchors and boxes over boxes.
    plain_scores, plain_boxes = theirs(scene)
    torch.testing.assert_close(criterion(**scene), plain_scores / 60 + 2 * plain_boxes / 8, rtol=1e-6, atol=0)


def test_a_term_can_count_the_positives_itself(scene: dict[str, Tensor]) -> None:
    scores, boxes = theirs(scene)
    value = nearfar.compose("focal(normalizer='positives') + 2.0 * ciou")(**scene)
    torch.testing.assert_close(value, (scores + 2 * boxes) / 8, rtol=1e-6, atol=0)


def test_a_loss_round_another_is_weighted_too(scene: dict[str, Tensor]) -> None:
    weights = torch.zeros(8)
    criterion = nearfar.compose("focal + focal_iou(ciou)")
    weighted = criterion(**scene, box_weights=weights)
    assert weighted.item() == criterion.last["focal"].item()
    assert criterion.last["focal_iou"].item() == 0


def test_an_image_without_a_box_costs_its_scores_alone(scene: dict[str, Tensor]) -> None:
    none = torch.zeros(0, 4, dtype=torch.float64, requires_grad=True)
    criterion = nearfar.compose(RECIPE)
    value = criterion(**scene | {"pred_boxes": none, "target_boxes": none.detach()}, logit_normalizer=1)
    assert value.item() == criterion.last["focal"].item() > 0
    value.backward()
    assert none.grad is not None
    assert none.grad.shape == (0, 4)


def test_what_no_term_takes_is_refused_by_name(scene: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match=r"takes no input 'avg_factor'; it takes logits, targets, .*box_normalizer"):
        nearfar.compose(RECIPE)(**scene, avg_factor=8)
    with pytest.raises(InputError, match="takes no input 'box_weights'"):
        nearfar.compose("focal")(scene["logits"], scene["targets"], box_weights=torch.ones(8))


def test_every_loss_of_the_plugin_can_be_weighted_and_normalised() -> None:
    for spec in plugin.nearfar_losses():
        weights, normalizer = spec.optional_inputs
        assert weights.endswith("_weights")
        assert normalizer.endswith("_normalizer")
