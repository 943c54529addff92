"""Losses on overlap against exact rational arithmetic, torchvision, and the laws such losses obey."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import reducers as pml
from torch import Tensor, nn
from torchvision import ops

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import AvgNonZero, NoReduction, Sum
from nearfar_iou import box_loss
from nearfar_iou.alpha_iou import AlphaIoU
from nearfar_iou.bounded_iou import BoundedIoU
from nearfar_iou.ciou import CIoU
from nearfar_iou.diou import DIoU
from nearfar_iou.eiou import EIoU
from nearfar_iou.focal_iou import FocalIoU
from nearfar_iou.giou import GIoU
from nearfar_iou.inner_iou import InnerIoU
from nearfar_iou.iou import IoU
from nearfar_iou.mpdiou import MPDIoU
from nearfar_iou.siou import SIoU
from nearfar_iou.wiou import WIoU

EACH = NoReduction()
#: Those that are rational, but for a logarithm.
RATIONAL = {
    "linear": lambda **kw: IoU("linear", **kw),
    "log": lambda **kw: IoU("log", **kw),
    "square": lambda **kw: IoU("square", **kw),
    "giou": GIoU,
}
#: Those whose gradient is that of their value.
WHOLE = RATIONAL | {
    "diou": DIoU,
    "eiou": EIoU,
    "siou": SIoU,
    "mpdiou": lambda **kw: MPDIoU((30, 40), **kw),
    "bounded": BoundedIoU,
    "alpha": lambda reducer=None, **kw: AlphaIoU(GIoU(**kw), reducer=reducer),
    "inner": lambda reducer=None, **kw: InnerIoU(EIoU(**kw), reducer=reducer),
}
LOSSES = WHOLE | {
    "ciou": CIoU,
    "gated": lambda **kw: CIoU(alpha_gate=0.5, **kw),
    "unit": lambda **kw: CIoU("unit", **kw),
    "wiou_v1": lambda **kw: WIoU("v1", **kw),
    "wiou_v3": lambda **kw: WIoU(**kw).eval(),  # so that no call changes the next
    "focal": lambda reducer=None, **kw: FocalIoU(EIoU(**kw), reducer=reducer),
}
every_loss = pytest.mark.parametrize("kind", LOSSES)
every_rational_loss = pytest.mark.parametrize("kind", RATIONAL)
every_whole_loss = pytest.mark.parametrize("kind", WHOLE)
every_format = pytest.mark.parametrize("box_format", ["xyxy", "xywh", "cxcywh", "ltrb"])

Pair = tuple[list[float], list[float]]

PROPER: list[Pair] = [
    ([0, 0, 10, 10], [2, 3, 12, 9]),  # overlapping
    ([0, 0, 10, 10], [2, 3, 7, 9]),  # target within
    ([3, 4, 5, 6], [2, 3, 7, 9]),  # prediction within
    ([0, 0, 1, 1], [5, 7, 6, 9]),  # apart in both axes
    ([0, 0, 4, 4], [1, 6, 3, 9]),  # apart in one
    ([-3, -2, 1.5, 7], [-1, -4, 9, 0.5]),
]
TIED: list[Pair] = [
    ([0, 0, 10, 8], [0, 0, 10, 10]),  # three shared edges
    ([0, 0, 5, 5], [5, 1, 9, 4]),  # touching
    ([0, 0, 5, 5], [0, 0, 5, 5]),  # equal
    ([1, 1, 1, 4], [0, 0, 5, 5]),  # a line within
    ([7, 1, 7, 4], [0, 0, 5, 5]),  # a line apart
    ([1, 1, 4, 4], [2, 0, 2, 5]),  # a line as target
]
IMPROPER: list[Pair] = [
    ([10, 10, 0, 0], [0, 0, 10, 10]),  # inverted in both axes, over the target
    ([4, 1, 2, 6], [0, 0, 7, 7]),  # inverted in one, within
    ([20, 1, 12, 6], [0, 0, 7, 7]),  # inverted in one, apart
    ([9, 8, 3, 2], [0, 0, 6, 5.5]),
    ([1, 1, 3, 3], [6, 0, 2, 5]),  # an inverted target
    ([5, 0, 2, 3], [4, 1, 1, 2]),  # both inverted
]


def exact(kind: str, pred: Sequence[Fraction], target: Sequence[Fraction]) -> Fraction | Decimal:
    """The loss of one pair by its definition, in rational numbers."""
    overlap = area_p = area_t = hull = Fraction(1)
    fold = Fraction(0)
    for axis in (0, 1):
        spans = []
        for box in (pred, target):
            low, high = box[axis], box[axis + 2]
            spans.append((low, high) if low <= high else ((low + high) / 2,) * 2)
        (p1, p2), (t1, t2) = spans
        if pred[axis + 2] < pred[axis]:
            depth = pred[axis] - pred[axis + 2]
            fold += depth / (depth + (t2 - t1))
        if p1 == p2 == t1 == t2:  # they agree in this axis
            continue
        overlap *= max(min(p2, t2) - max(p1, t1), 0)
        area_p, area_t = area_p * (p2 - p1), area_t * (t2 - t1)
        hull *= max(p2, t2) - min(p1, t1)
    union = area_p + area_t - overlap
    iou = overlap / union if union else Fraction(0)
    if kind == "linear":
        return 1 - iou + fold
    if kind == "square":
        return 1 - iou**2 + fold
    if kind == "giou":
        return 1 - iou + (hull - union) / hull + fold
    clamped = max(iou, Fraction(1, 10**6))
    return (Decimal(clamped.denominator) / Decimal(clamped.numerator)).ln() + Decimal(fold.numerator) / Decimal(
        fold.denominator
    )


def fractions(box: Sequence[float]) -> list[Fraction]:
    return [Fraction(x) for x in box]


def exact_gradient(kind: str, pred: Sequence[float], target: Sequence[float]) -> list[float]:
    """Central differences by the eight coordinates: at a tie, the mean of the one-sided derivatives."""
    step = Fraction(1, 10**9)
    both = fractions(pred) + fractions(target)
    found = []
    for i in range(8):
        up, down = list(both), list(both)
        up[i], down[i] = up[i] + step, down[i] - step
        found.append(float(exact(kind, up[:4], up[4:]) - exact(kind, down[:4], down[4:])))
    return [value / float(2 * step) for value in found]


def as_tensors(pairs: list[Pair], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    pred, target = (torch.tensor(side, dtype=dtype) for side in zip(*pairs, strict=True))
    return pred.requires_grad_(), target.requires_grad_()


def random_pairs(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    boxes = []
    for _ in range(2):
        corner = torch.rand(n, 2, generator=random, dtype=torch.float64) * 10
        boxes.append(torch.cat((corner, corner + 0.1 + 8 * torch.rand(n, 2, generator=random, dtype=torch.float64)), 1))
    return boxes[0].to(dtype).requires_grad_(), boxes[1].to(dtype).requires_grad_()


def from_xyxy(boxes: Tensor, box_format: str) -> Tensor:
    if box_format == "ltrb":  # of a point at (2, −1)
        return torch.cat((torch.tensor([2, -1]) - boxes[:, :2], boxes[:, 2:] - torch.tensor([2, -1])), 1).detach()
    return ops.box_convert(boxes.detach(), "xyxy", box_format)


@every_rational_loss
@pytest.mark.parametrize("pairs", [PROPER, TIED[:3], TIED, IMPROPER, PROPER + TIED + IMPROPER])
def test_value_and_gradient_are_those_of_the_definition(kind: str, pairs: list[Pair]) -> None:
    pred, target = as_tensors(pairs)
    values = LOSSES[kind](reducer=EACH)(pred, target)
    values.sum().backward()
    assert pred.grad is not None
    assert target.grad is not None
    for i, (p, t) in enumerate(pairs):
        assert values[i].item() == pytest.approx(float(exact(kind, fractions(p), fractions(t))), rel=1e-12, abs=1e-12)
        found = [*pred.grad[i].tolist(), *target.grad[i].tolist()]
        assert found == pytest.approx(exact_gradient(kind, p, t), rel=1e-7, abs=1e-8), (p, t)


@every_whole_loss
@every_format
def test_gradcheck_away_from_ties(kind: str, box_format: str) -> None:
    loss = LOSSES[kind](reducer=EACH, box_format=box_format)
    pairs = PROPER + (IMPROPER if box_format == "xyxy" else [])
    # Nothing shares a coordinate any more, nor is the middle of one side an edge of another.
    noise = 0.1 * torch.rand(len(pairs), 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pred, target = (boxes.detach() for boxes in as_tensors(pairs))
    pred, target = from_xyxy(pred, box_format) + noise[:, :4], from_xyxy(target, box_format) + noise[:, 4:]
    assert torch.autograd.gradcheck(loss, (pred.requires_grad_(), target.requires_grad_()))


@every_loss
@every_format
def test_formats_describe_the_same_box(kind: str, box_format: str) -> None:
    pred, target = random_pairs(50)
    expected = LOSSES[kind](reducer=EACH)(pred, target)
    converted = from_xyxy(pred, box_format), from_xyxy(target, box_format)
    torch.testing.assert_close(
        LOSSES[kind](reducer=EACH, box_format=box_format)(*converted), expected, rtol=1e-9, atol=1e-12
    )


def test_giou_agrees_with_torchvision() -> None:
    pred, target = random_pairs(300)
    values = GIoU(reducer=EACH)(pred, target)
    theirs = ops.generalized_box_iou_loss(pred, target)
    torch.testing.assert_close(values, theirs, rtol=0, atol=1e-6)
    weights = torch.linspace(-1, 2, 300, dtype=torch.float64)
    ours_grad = torch.autograd.grad((values * weights).sum(), (pred, target))
    their_grad = torch.autograd.grad((theirs * weights).sum(), (pred, target))
    torch.testing.assert_close(ours_grad, their_grad, rtol=0, atol=1e-6)


def test_iou_agrees_with_torchvision() -> None:
    pred, target = random_pairs(100, seed=1)
    theirs = ops.box_iou(pred, target).diagonal()
    torch.testing.assert_close(IoU(reducer=EACH)(pred, target), 1 - theirs, rtol=0, atol=1e-12)
    seen = theirs > 1e-6
    torch.testing.assert_close(IoU("log", reducer=EACH)(pred, target)[seen], -theirs[seen].log(), rtol=0, atol=1e-12)


coordinate = st.one_of(
    st.integers(-4, 4).map(float),  # ties, empty and inverted boxes
    st.floats(-1000, 1000, allow_nan=False, width=32).map(lambda x: round(x * 1024) / 1024),
)
box = st.lists(coordinate, min_size=4, max_size=4)


@settings(deadline=None, max_examples=60)
@given(pairs=st.lists(st.tuples(box, box), min_size=1, max_size=8), kind=st.sampled_from(sorted(RATIONAL)))
def test_any_boxes_have_the_defined_loss(pairs: list[Pair], kind: str) -> None:
    pred, target = as_tensors(pairs)
    values = LOSSES[kind](reducer=EACH)(pred, target)
    for value, (p, t) in zip(values.tolist(), pairs, strict=True):
        assert value == pytest.approx(float(exact(kind, fractions(p), fractions(t))), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(pairs=st.lists(st.tuples(box, box), min_size=1, max_size=8), kind=st.sampled_from(sorted(LOSSES)))
def test_any_boxes_have_a_finite_loss_that_is_not_negative_and_a_finite_gradient(pairs: list[Pair], kind: str) -> None:
    for dtype in (torch.float64, torch.float32):
        pred, target = as_tensors(pairs, dtype)
        values = LOSSES[kind](reducer=EACH)(pred, target)
        assert (values >= 0).all()
        assert values.isfinite().all()
        for slopes in torch.autograd.grad(values.sum(), (pred, target)):
            assert slopes.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_perfect_prediction_costs_nothing_at_any_size(kind: str, dtype: torch.dtype) -> None:
    sides = torch.tensor([10.0**e for e in range(-4, 5)] + [0.0, 300.0, 640.0])
    w, h = (grid.flatten() for grid in torch.meshgrid(sides, sides, indexing="ij"))
    for corner in (0.0, -3.7, 0.123, 5000.0):
        start = torch.full_like(w, corner)
        boxes = torch.stack((start, start, start + w, start + h), 1).to(dtype)
        pred, target = boxes.clone().requires_grad_(), boxes.clone().requires_grad_()
        values = LOSSES[kind](reducer=EACH)(pred, target)
        assert torch.equal(values, torch.zeros_like(values))
        values.sum().backward()
        assert pred.grad is not None
        assert target.grad is not None
        assert torch.equal(pred.grad, torch.zeros_like(boxes))
        assert torch.equal(target.grad, torch.zeros_like(boxes))


@every_loss
@pytest.mark.parametrize("box_format", ["xywh", "cxcywh", "ltrb"])
def test_a_perfect_prediction_costs_nothing_in_any_format(kind: str, box_format: str) -> None:
    boxes = from_xyxy(random_pairs(50, dtype=torch.float32)[0], box_format)
    pred = boxes.clone().requires_grad_()
    value = LOSSES[kind](reducer=Sum(), box_format=box_format)(pred, boxes)
    value.backward()
    assert value.item() == 0
    assert pred.grad is not None
    assert not pred.grad.any()


CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@every_loss
def test_neither_place_nor_unit_nor_orientation_matters(kind: str) -> None:
    loss = LOSSES[kind](reducer=EACH)
    pred, target = (boxes.detach() for boxes in random_pairs(60))
    expected = loss(pred, target)
    shift = torch.tensor([3.0, -7.0, 3.0, -7.0], dtype=torch.float64)
    torch.testing.assert_close(loss(pred + shift, target + shift), expected, **CLOSE)
    if kind != "mpdiou":  # of which the image has a size
        torch.testing.assert_close(loss(pred * 1e-3, target * 1e-3), expected, **CLOSE)
    mirror, turn = [2, 1, 0, 3], [1, 0, 3, 2]
    flip = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(loss((pred * flip)[:, mirror], (target * flip)[:, mirror]), expected, **CLOSE)
    torch.testing.assert_close(loss(pred[:, turn], target[:, turn]), expected, **CLOSE)
    if kind != "bounded":  # which asks how good the best box with one of the prediction's coordinates is
        torch.testing.assert_close(loss(target, pred), expected, **CLOSE)


@pytest.mark.parametrize("kind", [*RATIONAL, "bounded", "alpha"])
def test_the_unit_of_one_axis_alone_does_not_matter_either(kind: str) -> None:
    loss = LOSSES[kind](reducer=EACH)
    pred, target = (boxes.detach() for boxes in random_pairs(60))
    stretch = torch.tensor([2.0, 50.0, 2.0, 50.0], dtype=torch.float64)
    torch.testing.assert_close(loss(pred * stretch, target * stretch), loss(pred, target), **CLOSE)


SEPARATING = ["giou", "diou", "ciou", "gated", "unit", "eiou", "siou", "mpdiou", "wiou_v1", "wiou_v3", "alpha", "inner"]


@pytest.mark.parametrize("kind", SEPARATING)
def test_boxes_cost_more_the_further_they_are_and_are_pulled_together(kind: str) -> None:
    away = torch.tensor([0.0, 0.5, 0.9, 1.1, 2.0, 3.0, 6.0, 50.0], dtype=torch.float64)
    pred = torch.stack((away, 0.3 * away, away + 1, 0.3 * away + 1), 1).requires_grad_()
    target = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64).expand(len(away), 4)
    values = LOSSES[kind](reducer=EACH)(pred, target)
    assert (values.diff() > 0).all()
    values.sum().backward()
    assert pred.grad is not None
    assert (pred.grad[1:, [0, 2]].sum(1) > 0).all()  # descent moves the box back


def straight_away(kind: str, pred_size: Tensor, target_size: Tensor) -> Tensor:
    """What boxes (n, 2) cost in 60 steps from the centre of their targets, (60, n)."""
    random = torch.Generator().manual_seed(5)
    way = torch.randn(len(pred_size), 2, generator=random, dtype=torch.float64)
    way = 30 * way / way.norm(dim=1, keepdim=True)
    target = torch.cat((-target_size, target_size), 1) / 2
    steps = torch.linspace(0, 1, 60, dtype=torch.float64)
    loss = LOSSES[kind](reducer=EACH)
    return torch.stack([loss(torch.cat((s * way - pred_size / 2, s * way + pred_size / 2), 1), target) for s in steps])


@pytest.mark.parametrize("kind", [kind for kind in SEPARATING if kind not in ("eiou", "inner")])
def test_straight_away_from_its_target_no_box_of_any_size_ever_costs_less(kind: str) -> None:
    random = torch.Generator().manual_seed(6)
    sizes = 0.1 + 8 * torch.rand(2, 500, 2, generator=random, dtype=torch.float64)
    assert (straight_away(kind, *sizes).diff(dim=0) > -1e-12).all()


def test_eiou_costs_less_further_on_for_boxes_of_very_different_sizes() -> None:
    small, large = torch.tensor([[[1.0, 1.0]], [[8.0, 8.0]]], dtype=torch.float64)
    costs = straight_away("eiou", small, large)[20:, 0]  # from where they share nothing
    assert (costs.diff() < 0).all()


@pytest.mark.parametrize(("form", "flat"), [("linear", 1.0), ("square", 1.0), ("log", 13.815510557964274)])
def test_iou_is_flat_for_boxes_apart(form: str, flat: float) -> None:
    pred, target = as_tensors([([0, 0, 1, 1], [3, 0, 4, 1]), ([0, 0, 1, 1], [50, 70, 60, 90])])
    values = IoU(form, reducer=EACH)(pred, target)
    assert values.tolist() == pytest.approx([flat, flat], rel=1e-12)
    values.sum().backward()
    assert pred.grad is not None
    assert not pred.grad.any()


@every_loss
def test_an_inverted_prediction_costs_more_than_any_proper_one_there_and_is_turned_round(kind: str) -> None:
    target = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    loss = LOSSES[kind](reducer=Sum())
    inverted = torch.tensor([[9.0, 8.0, 1.0, 2.0]], requires_grad=True)
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    value = loss(inverted, target)
    assert value > loss(point, target)
    assert kind == "focal" or loss(point, target) >= 1
    value.backward()
    assert inverted.grad is not None
    assert (inverted.grad[:, :2] > 0).all()  # descent takes x1, y1 down
    assert (inverted.grad[:, 2:] < 0).all()  # and x2, y2 up
    with torch.no_grad():
        for _ in range(300):
            inverted.grad = None
            with torch.enable_grad():
                loss(inverted, target).backward()
            inverted -= 2 * inverted.grad
    assert (inverted[:, 2:] > inverted[:, :2]).all()


@every_loss
def test_a_point_within_its_target_is_made_to_grow(kind: str) -> None:
    pred, target = as_tensors([([5, 5, 5, 5], [0, 0, 10, 10])])
    LOSSES[kind]()(pred, target).backward()
    assert pred.grad is not None
    assert (pred.grad[:, :2] > 0).all()
    assert (pred.grad[:, 2:] < 0).all()


@every_rational_loss
def test_boxes_on_one_line_have_the_loss_of_their_other_axis(kind: str) -> None:
    line_p, line_t = as_tensors([([2, 0, 2, 4], [2, 1, 2, 6])])
    wide_p, wide_t = as_tensors([([2, 0, 3, 4], [2, 1, 3, 6])])
    on_line, wide = LOSSES[kind]()(line_p, line_t), LOSSES[kind]()(wide_p, wide_t)
    assert on_line.item() == wide.item()
    for value, boxes, along in ((on_line, (line_p, line_t), True), (wide, (wide_p, wide_t), False)):
        slopes = torch.cat(torch.autograd.grad(value, boxes))
        assert slopes[:, 1::2].any()
        if along:
            assert not slopes[:, 0::2].any()


@every_loss
def test_no_rounding_makes_a_loss_negative(kind: str) -> None:
    target = random_pairs(20000, seed=4, dtype=torch.float32)[1].detach()
    noise = torch.randn(20000, 4, generator=torch.Generator().manual_seed(6)) * 1e-6
    for pred in (target + noise, target + noise * torch.tensor([0.0, 0.0, 0.0, 1.0])):
        assert (LOSSES[kind](reducer=EACH)(pred, target) >= 0).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_dtype_has_finite_losses_and_gradients_near_float64s(kind: str, dtype: torch.dtype) -> None:
    pairs: list[Pair] = [*PROPER, *TIED, *IMPROPER]
    pairs += [([0, 0, 300, 300], [0, 0, 300, 304]), ([0, 0, 1, 1], [40000, 40000, 60000, 60000])]
    pairs += [([0, 0, 0, 0], [0, 0, 0, 0]), ([1, 1, 1, 1], [2, 3, 2, 3]), ([0, 2, 4, 2], [1, 2, 5, 2])]
    pred, target = as_tensors(pairs, dtype)
    values = LOSSES[kind](reducer=EACH)(pred, target)
    assert values.dtype == torch.float32
    values.sum().backward()
    high_pred, high_target = pred.detach().double().requires_grad_(), target.detach().double().requires_grad_()
    high = LOSSES[kind](reducer=EACH)(high_pred, high_target)
    high.sum().backward()
    torch.testing.assert_close(values.double(), high, rtol=1e-5, atol=1e-6)
    for low, reference in ((pred.grad, high_pred.grad), (target.grad, high_target.grad)):
        assert low is not None
        assert low.dtype == dtype
        tolerance = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5}[dtype]
        torch.testing.assert_close(low.double(), reference, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if kind not in ("mpdiou", "unit")])
@pytest.mark.parametrize("size", [1e-18, 1e-12, 1e12, 1e18])
def test_areas_beyond_float32_do_no_harm(kind: str, size: float) -> None:
    pred, target = (torch.tensor([b], dtype=torch.float32) for b in PROPER[0])
    expected = LOSSES[kind]()(pred, target)
    found = LOSSES[kind]()(pred * size, target * size)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@every_loss
def test_integers_are_boxes_too(kind: str) -> None:
    pred, target = ([p for p, _ in PROPER[:5]], [t for _, t in PROPER[:5]])
    expected = LOSSES[kind]()(torch.tensor(pred).float(), torch.tensor(target).float())
    for dtype in (torch.uint8, torch.int32, torch.int64):
        assert LOSSES[kind]()(torch.tensor(pred, dtype=dtype), torch.tensor(target, dtype=dtype)) == expected
    leaf = torch.tensor(pred, dtype=torch.float32, requires_grad=True)
    assert LOSSES[kind]()(leaf, torch.tensor(target)) == expected


@every_loss
def test_a_mean_over_nothing_is_zero_and_fills_both_gradients(kind: str) -> None:
    for reducer in (None, Sum(), AvgNonZero()):
        pred, target = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
        value = LOSSES[kind](reducer=reducer)(pred, target)
        assert value.item() == 0
        value.backward()
        assert pred.grad is not None
        assert target.grad is not None
    empty = torch.zeros(0, 4, requires_grad=True)
    assert LOSSES[kind](reducer=pml.MeanReducer())(empty, empty.detach()).item() == 0


@every_loss
def test_the_pieces_make_no_difference(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = PROPER + TIED + IMPROPER + PROPER
    pred, target = as_tensors(pairs)
    expected = LOSSES[kind](reducer=EACH)(pred, target)
    grads = torch.autograd.grad(expected.sum(), (pred, target))
    monkeypatch.setattr(box_loss, "PIECE", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    values = LOSSES[kind](reducer=EACH)(pred, target)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(torch.autograd.grad(values.sum(), (pred, target)), grads, rtol=1e-14, atol=1e-15)


@every_loss
def test_each_box_gets_the_gradient_of_its_own_loss(kind: str) -> None:
    pred, target = random_pairs(20)
    loss = LOSSES[kind](reducer=EACH)
    weights = torch.arange(20, dtype=torch.float64) - 7
    together = torch.autograd.grad((loss(pred, target) * weights).sum(), pred)[0]
    for i in range(20):
        one = pred[i : i + 1].detach().requires_grad_()
        alone = torch.autograd.grad(loss(one, target[i : i + 1]).sum(), one)[0]
        torch.testing.assert_close(together[i], weights[i] * alone[0], rtol=1e-12, atol=1e-15)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    pred, target = random_pairs(5)
    GIoU()(pred, target.detach()).backward()
    assert pred.grad is not None
    assert target.grad is None
    GIoU()(pred.detach(), target).backward()
    assert target.grad is not None
    with torch.no_grad():
        assert not GIoU()(pred, target).requires_grad
    value = GIoU()(pred, target)
    first = torch.autograd.grad(value, pred, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(value, pred)[0])


def test_a_second_derivative_is_refused_rather_than_zero() -> None:
    pred, target = random_pairs(5)
    value = GIoU()(pred, target) + pred.square().sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, pred, create_graph=True)


@every_loss
def test_not_a_number_stays_visible_and_in_its_row(kind: str) -> None:
    pred, target = (boxes.detach().clone() for boxes in random_pairs(3))
    expected = LOSSES[kind](reducer=EACH)(pred, target)
    pred[1, 2] = float("nan")
    values = LOSSES[kind](reducer=EACH)(pred, target)
    assert values.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(values[::2], expected[::2])


def test_strides_do_not_matter() -> None:
    pred, target = (boxes.detach() for boxes in random_pairs(30))
    expected = GIoU()(pred, target)
    wide = torch.zeros(30, 6, dtype=torch.float64)
    wide[:, 1:5] = pred
    assert GIoU()(wide[:, 1:5], target.t().contiguous().t()) == expected
    assert GIoU()(pred[:1].expand(30, 4), target) == GIoU()(pred[:1].repeat(30, 1), target)


@every_loss
@pytest.mark.parametrize(
    ("reducer", "of"),
    [
        (pml.MeanReducer(), lambda v: v.mean()),
        (pml.SumReducer(), lambda v: v.sum()),
        (pml.AvgNonZeroReducer(), lambda v: v[v > 0].mean()),
        (pml.ThresholdReducer(low=0.5), lambda v: v[v > 0.5].mean()),
        (AvgNonZero(), lambda v: v[v > 0].mean()),
        (Sum(), lambda v: v.sum()),
        (None, lambda v: v.mean()),
    ],
    ids=lambda x: type(x).__name__,
)
def test_reducers_see_one_value_a_box(kind: str, reducer: nn.Module | None, of: object) -> None:
    pred, target = as_tensors(PROPER + TIED)
    values = LOSSES[kind](reducer=EACH)(pred, target)
    assert values.shape == (12,)
    assert callable(of)
    reduced = LOSSES[kind](reducer=reducer)(pred, target)
    torch.testing.assert_close(reduced, of(values))
    reduced.backward()
    assert pred.grad is not None
    assert pred.grad.isfinite().all()


def test_autocast_keeps_out() -> None:
    pred, target = random_pairs(10, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = GIoU()(pred, target)
    assert value == GIoU()(pred, target)


@every_loss
@pytest.mark.parametrize(
    ("pred", "target", "words"),
    [
        (torch.zeros(3, 4), torch.zeros(2, 4), "differ in number"),
        (torch.zeros(1, 4), torch.zeros(3, 4), "differ in number"),
        (torch.zeros(3, 5), torch.zeros(3, 5), r"\(n, 4\)"),
        (torch.zeros(4), torch.zeros(4), r"\(n, 4\)"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), r"\(n, 4\)"),
        (torch.zeros(3, 4, dtype=torch.bool), torch.zeros(3, 4), "real numbers"),
        (torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.complex64), "real numbers"),
        (torch.zeros(3, 4), torch.zeros(3, 4, device="meta"), "meta"),
    ],
)
def test_what_are_not_matched_boxes_is_said(kind: str, pred: Tensor, target: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        LOSSES[kind]()(pred, target)


def test_unknown_forms_and_formats_are_refused() -> None:
    with pytest.raises(ArgumentError, match="'linear', 'log', 'square'"):
        IoU("quadratic")
    for make in (IoU, GIoU, CIoU, WIoU):
        with pytest.raises(ArgumentError, match="'xyxy', 'xywh', 'cxcywh', 'ltrb'"):
            make(box_format="xyrb")
