"""WIoU's running mean: of each loss its own, in training alone, over all processes."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision import ops

from nearfar.errors import ArgumentError
from nearfar.nn.reducers import NoReduction
from nearfar.testing import run_on_ranks
from nearfar_iou import box_loss
from nearfar_iou.focal_iou import FocalIoU
from nearfar_iou.wiou import WIoU

EACH = NoReduction()


def batch(seed: int, n: int = 7) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    boxes = []
    for _ in range(2):
        corner = 5 * torch.rand(n, 2, generator=random, dtype=torch.float64)
        boxes.append(torch.cat((corner, corner + 1 + 5 * torch.rand(n, 2, generator=random, dtype=torch.float64)), 1))
    return boxes[0], boxes[1]


def miss(pred: Tensor, target: Tensor) -> Tensor:
    return 1 - ops.box_iou(pred, target).diagonal()


def attention(pred: Tensor, target: Tensor) -> Tensor:
    away = (pred[:, :2] + pred[:, 2:] - target[:, :2] - target[:, 2:]) / 2
    hull = torch.maximum(pred[:, 2:], target[:, 2:]) - torch.minimum(pred[:, :2], target[:, :2])
    return (away.square().sum(1) / hull.square().sum(1)).exp()


def test_a_batch_is_weighed_by_the_mean_of_those_before_it() -> None:
    loss, mean = WIoU(alpha=1.7, delta=2.5, momentum=0.25, reducer=EACH).double(), 1.0
    for seed in range(4):
        boxes = batch(seed)
        beta = miss(*boxes) / mean
        expected = beta / (2.5 * 1.7 ** (beta - 2.5)) * attention(*boxes) * miss(*boxes)
        torch.testing.assert_close(loss(*boxes), expected, rtol=1e-12, atol=1e-14)
        mean += 0.25 * (miss(*boxes).mean().item() - mean)
        assert loss.running_mean.item() == pytest.approx(mean, rel=1e-12)


def test_the_mean_is_kept_in_evaluation_and_moves_without_a_gradient_in_training() -> None:
    loss = WIoU(momentum=0.5)
    with torch.no_grad():
        loss(*batch(0))
    moved = loss.running_mean.clone()
    assert moved < 1
    loss.eval()(*batch(1))
    assert torch.equal(loss.running_mean, moved)
    loss.train()(*batch(2))
    torch.testing.assert_close(loss.running_mean, 0.5 * moved + 0.5 * miss(*batch(2)).mean().float())


def test_the_first_version_keeps_nothing() -> None:
    loss = WIoU("v1", reducer=EACH)
    boxes = batch(0)
    torch.testing.assert_close(loss(*boxes), attention(*boxes) * miss(*boxes), rtol=1e-12, atol=1e-14)
    assert loss.running_mean == 1


def test_no_boxes_and_boxes_that_are_no_numbers_leave_the_mean_alone() -> None:
    loss, clean = WIoU(momentum=0.5).double(), WIoU(momentum=0.5).double()
    loss(torch.zeros(0, 4), torch.zeros(0, 4))
    assert loss.running_mean == 1
    pred, target = batch(0)
    clean(pred[1:], target[1:])
    pred[0, 0] = math.nan
    loss(pred, target)
    assert loss.running_mean.item() == pytest.approx(clean.running_mean.item(), rel=1e-12)


def test_perfect_predictions_only_leave_a_finite_loss() -> None:
    loss = WIoU(momentum=1.0, reducer=EACH)
    _, target = batch(0)
    for _ in range(3):
        pred = target.clone().requires_grad_()
        values = loss(pred, target)
        assert not values.any()
        assert not torch.autograd.grad(values.sum(), pred)[0].any()
    assert loss.running_mean == 0
    assert loss(*batch(1)).isfinite().all()


def test_two_losses_have_two_means_and_a_copy_goes_on_as_the_first() -> None:
    one, other = WIoU(momentum=0.5), WIoU(momentum=0.5)
    one(*batch(0))
    assert other.running_mean == 1
    other.load_state_dict(one.state_dict())
    third = copy.deepcopy(one)
    assert one(*batch(1)) == other(*batch(1)) == third(*batch(1))


def test_pieces_and_wrappers_make_one_step_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, pieced, wrapped = (WIoU(momentum=0.5).double() for _ in range(3))
    plain(*batch(0))
    FocalIoU(wrapped)(*batch(0))
    monkeypatch.setattr(box_loss, "PIECE", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    pieced(*batch(0))
    for other in (pieced, wrapped):
        assert other.running_mean.item() == pytest.approx(plain.running_mean.item(), rel=1e-12)


def test_the_weight_is_one_at_delta_and_greatest_in_between() -> None:
    loss = WIoU(alpha=1.9, delta=3.0).double()
    beta = torch.linspace(0.01, 5, 500, dtype=torch.float64)
    weights = loss.focus(beta)
    assert loss.focus(torch.tensor(3.0)) == pytest.approx(1)
    assert beta[weights.argmax()].item() == pytest.approx(1 / math.log(1.9), abs=0.01)


def test_the_mean_is_that_of_all_processes(tmp_path: Path) -> None:
    run_on_ranks(_rank, 2, tmp_path)
    means = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    both = torch.cat((miss(*batch(0, 3)), miss(*batch(1, 9)))).mean()
    expected = 0.25 + 0.25 * both + 0.5 * miss(*batch(1, 9)).mean()
    assert means[0].item() == means[1].item() == pytest.approx(expected.item(), rel=1e-12)


def _rank(rank: int, world: int, folder: Path) -> None:
    loss = WIoU(momentum=0.5).double()
    loss(*batch(rank, (3, 9)[rank]))  # not as many boxes in each …
    loss(*batch(rank, (0, 9)[rank]))  # … and none in one
    torch.save(loss.running_mean, folder / f"{rank}.pt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"version": "v2"}, "'v1', 'v3'"),
        ({"alpha": 1.0}, "alpha must be greater than 1"),
        ({"delta": 0.0}, "delta must be greater than 0"),
        ({"momentum": 0.0}, "momentum must be greater than 0"),
        ({"momentum": 1.5}, "momentum lies in"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        WIoU(**arguments)
