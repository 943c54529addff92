"""What goes wrong with box losses elsewhere, one test each; torchvision is the judge where it is right."""

from __future__ import annotations

import inspect
import math
from importlib import import_module

import pytest
import torch
from torch import Tensor
from torchvision import ops

from nearfar.nn.reducers import NoReduction, Sum
from nearfar_iou.box_loss import BoxLoss
from nearfar_iou.ciou import CIoU
from nearfar_iou.diou import DIoU
from nearfar_iou.eiou import EIoU
from nearfar_iou.giou import GIoU
from nearfar_iou.siou import SIoU
from nearfar_iou.specs import around, overlap

EACH = NoReduction()
THEIRS = {
    "giou": (GIoU, ops.generalized_box_iou_loss),
    "diou": (DIoU, ops.distance_box_iou_loss),
    "ciou": (CIoU, ops.complete_box_iou_loss),
}
every_known_loss = pytest.mark.parametrize("kind", THEIRS)


def random_pairs(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    boxes = []
    for _ in range(2):
        corner = torch.rand(n, 2, generator=random, dtype=torch.float64) * 10
        boxes.append(torch.cat((corner, corner + 0.1 + 8 * torch.rand(n, 2, generator=random, dtype=torch.float64)), 1))
    return boxes[0].requires_grad_(), boxes[1].requires_grad_()


def one(box: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([box], dtype=dtype, requires_grad=True)


def gradient(loss: BoxLoss, pred: Tensor, target: Tensor) -> Tensor:
    return torch.autograd.grad(loss(pred, target).sum(), pred)[0]


@every_known_loss
def test_values_and_gradients_agree_with_torchvision(kind: str) -> None:
    make, theirs = THEIRS[kind]
    pred, target = random_pairs(500)
    ours, expected = make(reducer=EACH)(pred, target), theirs(pred, target)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    weights = torch.linspace(-1, 2, 500, dtype=torch.float64)
    found = torch.autograd.grad((ours * weights).sum(), (pred, target))
    torch.testing.assert_close(
        found, torch.autograd.grad((expected * weights).sum(), (pred, target)), rtol=0, atol=2e-6
    )


@every_known_loss
@pytest.mark.parametrize(
    ("pred", "target"),
    [
        ([0, 0, 10, 8], [0, 0, 10, 10]),  # shared edges
        ([0, 0, 4, 4], [1, 6, 3, 9]),  # apart in one axis: no gradient of the overlap in the other
        ([0, 0, 10, 10], [0, 0, 10, 10]),
    ],
)
def test_ties_split_the_gradient_as_autograd_does(kind: str, pred: list[float], target: list[float]) -> None:
    make, theirs = THEIRS[kind]
    p, t = one(pred), one(target)
    expected = torch.autograd.grad(theirs(p, t, reduction="sum"), (p, t))
    torch.testing.assert_close(torch.autograd.grad(make()(p, t), (p, t)), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("pred", "target"),
    [
        ([0, 0, 5, 0], [0, 0, 5, 0]),  # a line, perfect
        ([0, 5, 10, 5], [0, 0, 10, 10]),  # a prediction without height
        ([3, 3, 3, 3], [0, 0, 10, 10]),  # a point
    ],
)
def test_aspects_of_boxes_without_area_are_finite(pred: list[float], target: list[float], dtype: torch.dtype) -> None:
    p, t = one(pred, dtype), one(target, dtype)
    theirs = ops.complete_box_iou_loss(p, t, reduction="sum")
    assert any(x.isnan().any() for x in (theirs, *torch.autograd.grad(theirs, (p, t))))
    for loss in (CIoU(), CIoU("unit"), CIoU(alpha_gate=0.5)):
        value = loss(p, t)
        assert all(x.isfinite().all() for x in (value, *torch.autograd.grad(value, (p, t))))


def test_a_perfect_prediction_has_a_trade_off_of_nothing_over_nothing() -> None:
    box = one([0, 0, 10, 10], torch.float32)
    value = CIoU()(box, box.detach())
    assert value.item() == 0
    assert not torch.autograd.grad(value, box)[0].any()


def test_one_arctangent_is_the_difference_of_two() -> None:
    w, h, W, H = torch.rand(4, 1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64).add(0.01)
    # The overlap and the centres are taken out: v alone is what two losses differ in, with alpha.
    pred, target = (torch.stack((-a, -b, a, b), 1) / 2 for a, b in ((w, h), (W, H)))
    v = 4 / math.pi**2 * (torch.atan(W / H) - torch.atan(w / h)).square()
    miss = 1 - ops.box_iou(pred, target).diagonal()
    expected = v * v / (miss + v)
    found = CIoU(reducer=EACH)(pred, target) - DIoU(reducer=EACH)(pred, target)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_the_trade_off_has_no_gradient_of_its_own() -> None:
    pred, target = random_pairs(20)
    assert not torch.autograd.gradcheck(CIoU(reducer=EACH), (pred, target.detach()), raise_exception=False)


def test_the_gate_takes_the_aspect_away_from_boxes_that_overlap_little() -> None:
    pred, target = random_pairs(300)
    overlap = ops.box_iou(pred, target).diagonal()
    gated, plain, without = (loss(reducer=EACH)(pred, target) for loss in (gate, CIoU, DIoU))
    assert (overlap >= 0.5).any()
    assert torch.equal(gated, torch.where(overlap >= 0.5, plain, without))


def gate(**given: NoReduction) -> CIoU:
    return CIoU(alpha_gate=0.5, **given)


def test_the_unit_gradient_is_bounded_where_the_exact_one_grows_as_boxes_shrink() -> None:
    p, t = one([0, 0, 1e-4, 2e-4]), one([0.3, 0.3, 0.7, 0.4])
    plain, exact, unit = (gradient(loss, p, t) for loss in (DIoU(), CIoU(), CIoU("unit")))
    assert (exact - plain).abs().max() > 100
    torch.testing.assert_close(unit - plain, (exact - plain) * (1e-4**2 + 2e-4**2), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("loss", [CIoU(), CIoU("unit"), EIoU(), SIoU()], ids=repr)
def test_descent_makes_a_wide_prediction_of_a_tall_target_narrower_and_taller(loss: BoxLoss) -> None:
    slopes = gradient(loss, one([-4, -1, 4, 1]), one([-1, -4, 1, 4]))[0]
    assert (slopes[2] - slopes[0]) > 0  # the width falls
    assert (slopes[3] - slopes[1]) < 0  # the height grows


def test_the_penalty_of_an_angle_never_rewards_distance() -> None:
    away = torch.tensor([0.9, 1.1, 2, 3, 6, 40], dtype=torch.float64)
    pred = torch.stack((away, 0.3 * away, away + 1, 0.3 * away + 1), 1)
    values = SIoU(reducer=EACH)(pred, torch.tensor([[0.0, 0, 1, 1]], dtype=torch.float64).expand(6, 4))
    assert (values.diff() > 0).all()
    assert values[2] > 1
    slopes = gradient(SIoU(), one([0, 0, 1, 1]), one([5, 5, 6, 6]))
    assert slopes[0, [0, 2]].sum() < 0  # descent takes the box to its target
    assert slopes[0, [1, 3]].sum() < 0


@pytest.mark.parametrize("make", [GIoU, DIoU, CIoU, EIoU, SIoU])
def test_an_inverted_box_is_not_taken_for_the_box_turned_round(make: type[BoxLoss]) -> None:
    assert make()(one([10, 10, 0, 0]), one([0, 0, 10, 10])) > 1


@pytest.mark.parametrize("make", [GIoU, DIoU, CIoU, EIoU, SIoU])
@pytest.mark.parametrize("side", [1e-4, 1e-3, 1e-2, 1.0, 1e4])
def test_no_size_is_told_to_grow(make: type[BoxLoss], side: float) -> None:
    box = torch.tensor([[0.25, 0.25, 0.25 + side, 0.25 + side]], requires_grad=True)
    value = make()(box, box.detach())
    assert value.item() == 0
    assert not torch.autograd.grad(value, box)[0].any()
    # And one that is off by a tenth of its side costs the same at any.
    scale = torch.tensor([[0.0, 0, 1, 1]]) * side
    off = make()(scale + 0.1 * side, scale)
    torch.testing.assert_close(off, make()(scale / side + 0.1, scale / side), rtol=1e-5, atol=1e-6)


def test_no_loss_takes_a_number_to_add_to_areas_and_so_none_forgets_it() -> None:
    p, t = one([0, 0, 10, 10]), one([1, 2, 9, 10])  # squares: no aspect, and so no α, to differ in
    theirs = [ops.complete_box_iou_loss(p, t, eps=eps).item() for eps in (1e-7, 0.1)]
    assert theirs[0] == theirs[1]  # it has the argument, and leaves it out
    assert ops.distance_box_iou_loss(p, t, eps=0.1).item() != ops.distance_box_iou_loss(p, t).item()
    for spec in (*overlap.SPECS, *around.SPECS):
        module, _, cls = spec.target.partition(":")
        parameters = inspect.signature(getattr(import_module(module), cls)).parameters
        assert not [name for name in parameters if "eps" in name], spec.name


@pytest.mark.parametrize("make", [GIoU, DIoU, CIoU, EIoU, SIoU])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_areas_beyond_half_precision_are_no_matter(make: type[BoxLoss], dtype: torch.dtype) -> None:
    p, t = one([0, 0, 300, 300], dtype), one([8, 4, 320, 304], dtype)
    exact = make()(p.double(), t.double())
    torch.testing.assert_close(make()(p, t).double(), exact, rtol=1e-6, atol=0)
    found, expected = gradient(make(), p, t), gradient(make(), p.detach().double().requires_grad_(), t.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=0)


@every_known_loss
def test_no_boxes_cost_nothing_and_fill_both_gradients(kind: str) -> None:
    pred, target = (torch.zeros(0, 4, requires_grad=True) for _ in range(2))
    for reducer in (None, Sum()):
        value = THEIRS[kind][0](reducer=reducer)(pred, target)
        assert value.item() == 0
        assert all(slopes.shape == (0, 4) for slopes in torch.autograd.grad(value, (pred, target)))
