"""Losses on coordinates against their definitions in plain numbers, and torch where it has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import reducers as pml
from torch import Tensor

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction
from nearfar_iou import coordinate_loss
from nearfar_iou.balanced_l1 import BalancedL1
from nearfar_iou.coordinate_loss import CoordinateLoss
from nearfar_iou.l1 import L1
from nearfar_iou.l2 import L2
from nearfar_iou.precise import excess_over_log1p
from nearfar_iou.smooth_l1 import SmoothL1

EACH = NoReduction()
PRED = [[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0], [-1.0, 0.25, 0.5, 100.0], [1.0, 1.0 + 1e-9, 2.5, 1e6]]
TARGET = [[0.0, 1.5, 4.0, 3.1], [5.0, 5.0, 5.0, 5.0], [1.0, 0.0, -0.5, -900.0], [1.5, 1.0, 0.0, -1e6]]


def smooth(beta: float) -> Callable[[float], float]:
    return lambda d: d * d / (2 * beta) if d < beta else d - beta / 2


def balanced(alpha: float, gamma: float, beta: float) -> Callable[[float], float]:
    b = math.exp(gamma / alpha) - 1
    far = gamma * beta / b - alpha * beta

    def loss(d: float) -> float:
        if d >= beta:
            return gamma * d + far
        with localcontext() as context:
            context.prec = 60  # the two terms cancel but for d²
            t = Decimal(b) * Decimal(d) / Decimal(beta)
            value = Decimal(alpha) * Decimal(beta) / Decimal(b) * (t + 1) * (t + 1).ln() - Decimal(alpha) * Decimal(d)
            return float(value)

    return loss


#: Every form, with what it costs for a coordinate to be off by d.
FORMS: list[tuple[type[CoordinateLoss], dict[str, float], Callable[[float], float]]] = [
    (L1, {}, lambda d: d),
    (L2, {}, lambda d: d * d),
    *[(SmoothL1, {"beta": beta}, smooth(beta)) for beta in (0.0, 1e-3, 1 / 9, 1.0, 5.0)],
    (BalancedL1, {}, balanced(0.5, 1.5, 1.0)),
    (BalancedL1, {"alpha": 0.2, "gamma": 1.0, "beta": 0.3}, balanced(0.2, 1.0, 0.3)),
]
every_form = pytest.mark.parametrize(("kind", "arguments", "cost"), FORMS, ids=lambda x: str(getattr(x, "__name__", x)))


def boxes(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.tensor(PRED, dtype=dtype, requires_grad=True), torch.tensor(TARGET, dtype=dtype, requires_grad=True)


@every_form
def test_the_value_is_the_definitions(
    kind: Callable[..., CoordinateLoss], arguments: dict[str, float], cost: Callable[[float], float]
) -> None:
    pred, target = boxes()
    each = [[cost(abs(p - t)) for p, t in zip(*rows, strict=True)] for rows in zip(PRED, TARGET, strict=True)]
    sums = [sum(row) for row in each]
    assert kind(**arguments, reducer=EACH)(pred, target).tolist() == pytest.approx(sums, rel=1e-12)
    mean = kind(**arguments, coord="mean", reducer=EACH)(pred, target).tolist()
    assert mean == pytest.approx([total / 4 for total in sums], rel=1e-12)
    assert kind(**arguments)(pred, target).item() == pytest.approx(sum(sums) / len(sums), rel=1e-12)


@every_form
@pytest.mark.parametrize("coord", ["sum", "mean"])
def test_gradcheck_for_predictions_and_targets(kind: Any, arguments: Any, cost: Any, coord: str) -> None:
    noise = torch.rand(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pred, target = boxes()
    pred = (pred.detach() + 0.1 * noise).clamp(-100, 100).requires_grad_()
    target = target.detach().clamp(-100, 100).requires_grad_()
    assert torch.autograd.gradcheck(kind(**arguments, coord=coord, reducer=EACH), (pred, target))


@every_form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_an_exact_prediction_costs_nothing_and_is_left_alone(
    kind: Any, arguments: Any, cost: Any, dtype: torch.dtype, size: float
) -> None:
    pred = (size * torch.rand(9, 4, generator=torch.Generator().manual_seed(3))).to(dtype).requires_grad_()
    target = pred.detach().clone().requires_grad_()
    value = kind(**arguments)(pred, target)
    value.backward()
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert value.item() == 0
    for boxes_ in (pred, target):
        assert boxes_.grad is not None
        assert not boxes_.grad.any()


@every_form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_near_float64(kind: Any, arguments: Any, cost: Any, dtype: torch.dtype) -> None:
    pred, target = (torch.tensor(rows[:3]).to(dtype) for rows in (PRED, TARGET))
    value = kind(**arguments, reducer=EACH)(pred, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), kind(**arguments, reducer=EACH)(pred.double(), target.double()))


@every_form
def test_an_empty_batch_costs_nothing_and_fills_the_gradients(kind: Any, arguments: Any, cost: Any) -> None:
    pred, target = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
    value = kind(**arguments)(pred, target)
    value.backward()
    assert value.item() == 0
    assert pred.grad is not None
    assert target.grad is not None


@every_form
def test_neither_pieces_nor_strides_make_a_difference(
    kind: Any, arguments: Any, cost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pred, target = boxes()
    value = kind(**arguments)(pred, target)
    expected = torch.autograd.grad(value, (pred, target))
    monkeypatch.setattr(coordinate_loss, "PIECE", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    turned = [each.detach().t().contiguous().t().requires_grad_() for each in (pred, target)]
    found = kind(**arguments)(*turned)
    assert torch.equal(found, value)
    assert all(map(torch.equal, torch.autograd.grad(found, turned), expected))


def test_each_gets_the_gradient_of_its_own_loss_twice_through_a_kept_graph() -> None:
    pred, target = boxes()
    values = SmoothL1(reducer=EACH)(pred, target)
    weights = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    expected = torch.autograd.grad(F.smooth_l1_loss(pred, target, reduction="none").sum(1) @ weights, (pred, target))
    for keep in (True, True, False):
        found = torch.autograd.grad(values, (pred, target), weights, retain_graph=keep)
        torch.testing.assert_close(found, expected)


def test_only_the_side_that_asks_gets_a_gradient() -> None:
    pred, target = boxes()
    L1()(pred.detach(), target).backward()
    assert pred.grad is None
    assert target.grad is not None
    assert L1()(pred.detach(), target.detach()).grad_fn is None


def test_a_second_derivative_is_refused_rather_than_zero() -> None:
    pred, target = boxes()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(L2()(pred, target) + pred.square().sum(), pred, create_graph=True)


def test_means_over_coordinates_are_torchs() -> None:
    pred, target = boxes()
    torch.testing.assert_close(SmoothL1(0.5, "mean")(pred, target), F.smooth_l1_loss(pred, target, beta=0.5))
    torch.testing.assert_close(L1("mean")(pred, target), F.l1_loss(pred, target))
    torch.testing.assert_close(L2("mean")(pred, target), F.mse_loss(pred, target))


def test_a_beta_of_zero_is_the_l1_loss() -> None:
    pred, target = boxes()
    assert torch.equal(SmoothL1(0.0)(pred, target), L1()(pred, target))


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_balanced_slopes_are_continuous_and_vanish_at_the_target_for_any_beta(beta: float) -> None:
    """mmdet's slope at the target is α / β − α."""
    pred = torch.tensor([[1e-12, 1e-4, beta * (1 - 1e-9), beta * (1 + 1e-9)]], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(BalancedL1(beta=beta)(pred, torch.zeros_like(pred)), pred)
    b = math.exp(3) - 1
    expected = [0.5 * math.log1p(b / beta * 1e-12), 0.5 * math.log1p(b / beta * 1e-4), 1.5, 1.5]
    assert slopes[0].tolist() == pytest.approx(expected, rel=1e-8)


def test_the_excess_over_log1p_keeps_its_relative_precision() -> None:
    each = [-0.5, -0.11, -0.0999, -1e-3, -1e-12, 1e-300, 1e-12, 1e-4, 0.05, 0.0999, 0.1001, 3.0, 1e9]
    x = torch.tensor(each, dtype=torch.float64)
    with localcontext() as context:
        context.prec = 700
        expected = [float(Decimal(value) - (1 + Decimal(value)).ln()) for value in each]
    assert excess_over_log1p(x).tolist() == pytest.approx(expected, rel=2e-14, abs=1e-320)


def test_boxes_may_be_weighted_and_their_mean_normalised() -> None:
    pred, target = boxes()
    values = L1(reducer=EACH)(pred, target)
    weights = torch.tensor([1.0, 2.0, 0.0, 0.5])
    torch.testing.assert_close(L1()(pred, target, weights), (values * weights).mean())
    torch.testing.assert_close(L1()(pred, target, weights, 7), (values * weights).sum() / 7)
    with pytest.raises(InputError, match="box_weights"):
        L1()(pred, target, weights[:2])


def test_integers_are_coordinates_too() -> None:
    pred = torch.tensor([[0.0, 1.0, 2.0, 3.5]], requires_grad=True)
    assert SmoothL1()(pred, torch.tensor([[0, 1, 2, 3]])).item() == 0.125


def test_foreign_reducers_see_one_value_a_box() -> None:
    pred, target = boxes()
    values = SmoothL1(reducer=EACH)(pred, target)
    assert SmoothL1(reducer=pml.AvgNonZeroReducer())(pred, target).item() == pytest.approx(values.sum().item() / 3)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(InputError, match="differ in number"):
        SmoothL1()(torch.zeros(2, 4), torch.zeros(3, 4))
    for beta in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ArgumentError, match="beta"):
            SmoothL1(beta)
    for name in ("alpha", "gamma", "beta"):
        with pytest.raises(ArgumentError, match=name):
            BalancedL1(**{name: 0.0})
    with pytest.raises(ArgumentError, match="80 times alpha"):
        BalancedL1(alpha=0.01)
    with pytest.raises(ArgumentError, match="'sum', 'mean'"):
        SmoothL1(coord="none")  # type: ignore[arg-type]
