"""Smooth L1 loss against its definition and torch."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import reducers as pml

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction
from nearfar_iou.smooth_l1 import SmoothL1

EACH = NoReduction()
PRED = [[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0], [-1.0, 0.25, 0.5, 100.0]]
TARGET = [[0.0, 1.5, 4.0, 3.1], [5.0, 5.0, 5.0, 5.0], [1.0, 0.0, -0.5, -900.0]]


def definition(beta: float) -> list[float]:
    sums = []
    for p_box, t_box in zip(PRED, TARGET, strict=True):
        total = 0.0
        for p, t in zip(p_box, t_box, strict=True):
            d = abs(p - t)
            total += d * d / (2 * beta) if d < beta else d - beta / 2
        sums.append(total)
    return sums


def boxes(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(PRED, dtype=dtype, requires_grad=True), torch.tensor(TARGET, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("beta", [0.0, 1e-3, 1 / 9, 1.0, 5.0])
def test_the_value_is_the_definitions(beta: float) -> None:
    pred, target = boxes()
    assert SmoothL1(beta, reducer=EACH)(pred, target).tolist() == pytest.approx(definition(beta), rel=1e-12)
    mean = SmoothL1(beta, "mean", reducer=EACH)(pred, target).tolist()
    assert mean == pytest.approx([total / 4 for total in definition(beta)], rel=1e-12)
    assert SmoothL1(beta)(pred, target).item() == pytest.approx(sum(definition(beta)) / 3, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.3, 2.0])
def test_gradcheck_for_predictions_and_targets(beta: float) -> None:
    noise = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pred, target = boxes()
    pred = (pred.detach() + 0.1 * noise).requires_grad_()
    assert torch.autograd.gradcheck(SmoothL1(beta, reducer=EACH), (pred, target))


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_an_exact_prediction_has_no_gradient(beta: float) -> None:
    pred = torch.tensor(PRED, requires_grad=True)
    value = SmoothL1(beta)(pred, pred.detach().clone())
    value.backward()
    assert value.item() == 0
    assert pred.grad is not None
    assert not pred.grad.any()


def test_the_mean_over_coordinates_is_torchs() -> None:
    pred, target = boxes()
    theirs = torch.nn.SmoothL1Loss(beta=0.5)(pred, target)
    torch.testing.assert_close(SmoothL1(0.5, "mean")(pred, target), theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(dtype: torch.dtype) -> None:
    pred = torch.tensor([[60000.0, 0, 1, 2]], dtype=dtype, requires_grad=True)
    target = torch.tensor([[-60000.0, 0, 1, 2]], dtype=dtype)
    value = SmoothL1()(pred, target)
    value.backward()
    assert value.item() == pred.detach().double()[0, 0] * 2 - 0.5  # beyond float16's range
    assert pred.grad is not None
    assert pred.grad.tolist() == [[1, 0, 0, 0]]


def test_integers_are_coordinates_too() -> None:
    pred = torch.tensor([[0, 0, 5, 5]], dtype=torch.uint8)
    target = torch.tensor([[3, 0, 5, 6]], dtype=torch.uint8)
    assert SmoothL1(0)(pred, target).item() == 4


def test_a_mean_over_nothing_is_zero_and_fills_both_gradients() -> None:
    pred, target = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
    value = SmoothL1()(pred, target)
    value.backward()
    assert value.item() == 0
    assert pred.grad is not None
    assert target.grad is not None


def test_foreign_reducers_see_one_value_a_box() -> None:
    pred, target = boxes()
    assert SmoothL1(reducer=pml.AvgNonZeroReducer())(pred, target).item() == pytest.approx(sum(definition(1.0)) / 2)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(InputError, match="differ in number"):
        SmoothL1()(torch.zeros(2, 4), torch.zeros(3, 4))
    for beta in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ArgumentError, match="beta"):
            SmoothL1(beta)
    with pytest.raises(ArgumentError, match="'sum', 'mean'"):
        SmoothL1(coordinates="none")
