"""How box losses are called: weights, normalisers, formats, large batches; and what goes round them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import nearfar
from nearfar.errors import ArgumentError, InputError, RecipeError
from nearfar.nn.reducers import AvgNonZero, Mean, NoReduction, Sum
from nearfar.testing.meter import peak_bytes
from nearfar_iou.alpha_iou import AlphaIoU
from nearfar_iou.bounded_iou import BoundedIoU
from nearfar_iou.box_loss import BoxLoss
from nearfar_iou.ciou import CIoU
from nearfar_iou.diou import DIoU
from nearfar_iou.eiou import EIoU
from nearfar_iou.focal_iou import FocalIoU
from nearfar_iou.giou import GIoU
from nearfar_iou.inner_iou import InnerIoU
from nearfar_iou.iou import IoU
from nearfar_iou.mpdiou import MPDIoU
from nearfar_iou.siou import SIoU
from nearfar_iou.smooth_l1 import SmoothL1
from nearfar_iou.wiou import WIoU

EACH = NoReduction()
PENALIZED = [IoU(), GIoU(), DIoU(), CIoU(), EIoU(), SIoU(), MPDIoU(20)]


def batch(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    boxes = []
    for _ in range(2):
        corner = 5 * torch.rand(n, 2, generator=random, dtype=torch.float64)
        boxes.append(torch.cat((corner, corner + 1 + 5 * torch.rand(n, 2, generator=random, dtype=torch.float64)), 1))
    return boxes[0].to(dtype).requires_grad_(), boxes[1].to(dtype)


# ---- weights and normalisers


def test_weights_multiply_and_the_normaliser_divides() -> None:
    pred, target = batch(6)
    values, weights = GIoU(reducer=EACH)(pred, target), torch.arange(6.0)
    total = (values * weights).sum()
    assert torch.equal(GIoU(reducer=EACH)(pred, target, weights), values * weights)
    torch.testing.assert_close(GIoU(reducer=Sum())(pred, target, weights), total)
    torch.testing.assert_close(GIoU()(pred, target, weights), total / 6)
    for normalizer in (2, 2.0, torch.tensor(2), torch.tensor(2.0, dtype=torch.float16)):
        torch.testing.assert_close(GIoU()(pred, target, weights, normalizer), total / 2)
        torch.testing.assert_close(GIoU()(pred, target, box_normalizer=normalizer), values.sum() / 2)


@pytest.mark.parametrize("loss", ["giou", "smooth_l1", "wiou", "alpha_iou(ciou)"])
def test_every_reducer_of_the_core_goes_by_its_name(loss: str) -> None:
    pred, target = batch(12)
    images = torch.arange(12) // 5  # five, five and two
    target = torch.cat((target[:9], pred[9:].detach()))  # the last three are perfect
    each = nearfar.compose(loss, reducer="none").eval()(pred, target)
    expected = {
        "mean": each.mean(),
        "sum": each.sum(),
        "avg_non_zero": each[:9].mean(),
        "top_k(k=4)": each.topk(4).values.mean(),
        "per_group": torch.stack([each[images == image].mean() for image in range(3)]).mean(),
    }
    for reducer, value in expected.items():
        criterion = nearfar.compose(loss, reducer=reducer).eval()
        groups = {"box_groups": images} if reducer == "per_group" else {}
        torch.testing.assert_close(criterion(pred, target, **groups), value)


def test_weights_get_a_gradient_and_a_normaliser_gets_none() -> None:
    pred, target = batch(6)
    weights = torch.rand(6, dtype=torch.float64).requires_grad_()
    normalizer = torch.tensor(3.0, requires_grad=True)
    value = GIoU()(pred, target, weights, normalizer)
    by_weights, by_normalizer = torch.autograd.grad(value, (weights, normalizer), allow_unused=True)
    torch.testing.assert_close(by_weights, GIoU(reducer=EACH)(pred, target) / 3)
    assert by_normalizer is None


def test_boxes_of_weight_zero_have_no_gradient() -> None:
    pred, target = batch(6)
    weights = torch.tensor([True, False, True, True, False, True])
    (slopes,) = torch.autograd.grad(CIoU()(pred, target, weights), pred)
    assert slopes.any(1).equal(weights)


def test_no_positives_is_no_division_by_zero() -> None:
    pred, target = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4)
    for normalizer in (0, torch.tensor(0.0)):
        value = GIoU()(pred, target, torch.zeros(0), normalizer)
        assert value.item() == 0
        value.backward()


@pytest.mark.parametrize(
    ("weights", "normalizer", "words"),
    [
        (torch.ones(5), None, r"box_weights \(5,\) must be \(6,\)"),
        (torch.ones(6, 4), None, r"box_weights \(6, 4\) must be \(6,\)"),
        ([1.0] * 6, None, "box_weights must be a tensor"),
        (torch.ones(6, dtype=torch.complex64), None, "real numbers"),
        (torch.ones(6, device="meta"), None, "box_weights are on meta"),
        (None, -1, "box_normalizer must be a finite number"),
        (None, float("nan"), "box_normalizer must be a finite number"),
        (None, True, "box_normalizer must be a finite number"),
        (None, torch.ones(6), "box_normalizer must be one real number"),
    ],
)
def test_what_is_no_weight_and_no_normaliser_is_said(weights: Tensor, normalizer: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        GIoU()(*batch(6), weights, normalizer)


# ---- formats


@pytest.mark.parametrize("loss", [IoU, GIoU, DIoU, CIoU, EIoU, SIoU, WIoU, BoundedIoU])
def test_distances_from_a_point_are_boxes_whatever_the_point(loss: type[BoxLoss]) -> None:
    (pred, target), point = batch(20), torch.rand(20, 2, dtype=torch.float64)
    distances = [torch.cat((point - boxes[:, :2], boxes[:, 2:] - point), 1).detach() for boxes in (pred, target)]
    torch.testing.assert_close(
        loss(box_format="ltrb", reducer=EACH)(*distances), loss(reducer=EACH)(pred, target), rtol=1e-9, atol=1e-12
    )


# ---- many boxes

MANY = 40_000


@pytest.mark.parametrize("loss", [GIoU(reducer=Sum()), CIoU(reducer=Sum())], ids=repr)
def test_a_graph_that_is_kept_gives_its_gradient_again(loss: BoxLoss) -> None:
    pred, target = batch(MANY)
    weights = torch.rand(MANY, dtype=torch.float64)
    value = loss(pred, target, weights)
    first = torch.autograd.grad(value, pred, retain_graph=True)[0]
    kept = first.clone()
    second = torch.autograd.grad(3 * value, pred)[0]
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, 3 * first, rtol=1e-12, atol=0)
    few = loss(pred[:9], target[:9], weights[:9])
    torch.testing.assert_close(torch.autograd.grad(few, pred)[0][:9], first[:9], rtol=1e-12, atol=1e-15)


def test_a_batch_takes_the_memory_of_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    pred, target = batch(400_000, dtype=torch.float32)
    loss = CIoU(reducer=Sum())

    def step() -> None:
        pred.grad = None
        loss(pred, target).backward()

    step()
    pred.grad = None
    # A value and four slopes of four bytes for each, and what a piece needs meanwhile.
    assert peak_bytes(step) < 400_000 * 20 + 12e6


def test_jacobians_of_unreduced_losses_can_be_taken_at_once() -> None:
    pred, target = batch(5)
    rows = torch.autograd.functional.jacobian(lambda p: GIoU(reducer=EACH)(p, target), pred, vectorize=True)
    (slopes,) = torch.autograd.grad(GIoU(reducer=Sum())(pred, target), pred)
    torch.testing.assert_close(rows.sum(0), slopes)
    assert not rows[0, 1:].any()


# ---- round another loss


@pytest.mark.parametrize("loss", PENALIZED, ids=repr)
def test_a_power_of_one_and_a_ratio_of_one_and_no_focus_change_nothing(loss: BoxLoss) -> None:
    pred, target = batch(50)
    expected, slopes = values_and_slopes(loss, pred, target)
    for around in (AlphaIoU(loss, 1.0), InnerIoU(loss, 1.0), FocalIoU(loss, 0.0)):
        found = values_and_slopes(around, pred, target)
        torch.testing.assert_close(found, (expected, slopes), rtol=1e-12, atol=1e-14)


def values_and_slopes(loss: BoxLoss, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    values = loss.terms(pred, target).values
    return values, torch.autograd.grad(values.sum(), pred)[0]


def test_losses_go_round_losses_that_go_round_losses() -> None:
    pred, target = batch(50)
    overlap = 1 - IoU(reducer=EACH)(pred, target)
    nested = FocalIoU(FocalIoU(InnerIoU(EIoU(reducer=EACH)), 0.5), 1.5)
    torch.testing.assert_close(nested(pred, target), overlap**2 * InnerIoU(EIoU(reducer=EACH))(pred, target))


def test_format_and_reducer_are_those_of_the_loss_inside_unless_told_otherwise() -> None:
    inside = EIoU(box_format="cxcywh", reducer=Sum())
    for make in (AlphaIoU, FocalIoU, InnerIoU):
        assert make(inside).box_format == "cxcywh"
        assert make(inside).reducer is inside.reducer
        assert isinstance(make(inside, reducer=AvgNonZero()).reducer, AvgNonZero)
        assert isinstance(make(EIoU()).reducer, Mean)


@pytest.mark.parametrize("make", [AlphaIoU, InnerIoU])
@pytest.mark.parametrize("loss", [IoU("log"), IoU("square"), WIoU(), BoundedIoU(), FocalIoU(GIoU()), SmoothL1()])
def test_what_cannot_be_taken_apart_is_refused(make: type[AlphaIoU], loss: nn.Module) -> None:
    with pytest.raises(ArgumentError, match=rf"1 − IoU and penalties, such as giou; not .*{type(loss).__name__}"):
        make(loss)


@pytest.mark.parametrize("loss", [SmoothL1(), nn.L1Loss(), "giou", None])
def test_what_is_no_box_loss_is_refused(loss: nn.Module) -> None:
    with pytest.raises(ArgumentError, match="goes round a box loss"):
        FocalIoU(loss)


@pytest.mark.parametrize("around", ["alpha_iou", "focal_iou", "inner_iou"])
def test_a_recipe_that_puts_one_round_another_sort_is_refused_before_it_is_made(around: str) -> None:
    with pytest.raises(RecipeError, match=r"not iou\.smooth_l1"):
        nearfar.compose(f"{around}(smooth_l1)")
    with pytest.raises(RecipeError, match=r"not iou\.focal"):
        nearfar.compose(f"{around}(focal)")


def test_recipes_nest_and_add_up() -> None:
    criterion = nearfar.compose(
        "focal_iou(eiou, gamma=0.5) + 2.0 * alpha_iou(ciou(alpha_gate=0.5), power=2.0) + mpdiou(image_size=[480, 640])"
    )
    pred, target = batch(20)
    expected = (
        FocalIoU(EIoU())(pred, target)
        + 2 * AlphaIoU(CIoU(alpha_gate=0.5), 2.0)(pred, target)
        + MPDIoU((480, 640))(pred, target)
    )
    torch.testing.assert_close(criterion(pred, target), expected)
    assert str(nearfar.Recipe.of(str(criterion.recipe))) == str(criterion.recipe)


# ---- arguments


def test_an_image_has_one_size_or_two() -> None:
    pred, target = batch(5)
    assert MPDIoU(12)(pred, target) == MPDIoU((12.0, 12.0))(pred, target) == MPDIoU([12, 12])(pred, target)
    with pytest.raises(ArgumentError, match="image_size must be one number or two"):
        MPDIoU((3, 4, 5))
    with pytest.raises(ArgumentError, match="image_size must be greater than 0"):
        MPDIoU((0, 640))
    with pytest.raises(RecipeError, match="image_size"):
        nearfar.compose("mpdiou")
    assert nearfar.compose("mpdiou", image_size=12)(pred, target) == MPDIoU(12)(pred, target)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CIoU("approximate"), "'exact', 'unit'"),
        (lambda: CIoU(alpha_gate=1.5), "alpha_gate lies in 0..1"),
        (lambda: SIoU(theta=0.5), "theta lies in 1..10"),
        (lambda: BoundedIoU(beta=0.0), "beta must be greater than 0"),
        (lambda: AlphaIoU(GIoU(), 0.5), "power lies in"),
        (lambda: FocalIoU(GIoU(), -1.0), "gamma must not be negative"),
        (lambda: InnerIoU(GIoU(), 2.0), "ratio lies in"),
    ],
)
def test_arguments_out_of_range_are_refused(make: type[BoxLoss], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        make()
