"""Focal loss against its definition in decimals of 150 digits, and torchvision where that is right."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import reducers as pml
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction, Sum
from nearfar_iou import dense_loss
from nearfar_iou.focal import Focal

EACH = NoReduction()
LOGITS = [-100.0, -30.0, -20.5, -3.0, -1e-3, 0.0, 0.7, 8.0, 19.0, 37.0, 100.0]
STEP = Decimal(10) ** -30


def definition(z: Decimal, y: float, alpha: float | None, gamma: float) -> Decimal:
    p = 1 / (1 + (-z).exp())
    weight_1, weight_0 = (Decimal(1), Decimal(1)) if alpha is None else (Decimal(alpha), 1 - Decimal(alpha))
    of_1 = -weight_1 * (1 - p) ** Decimal(gamma) * p.ln()
    of_0 = -weight_0 * p ** Decimal(gamma) * (1 - p).ln()
    return Decimal(y) * of_1 + (1 - Decimal(y)) * of_0


def value_and_slope(z: float, y: float, alpha: float | None, gamma: float) -> tuple[float, float]:
    with localcontext() as context:
        context.prec = 150
        z_ = Decimal(z)
        up, down = definition(z_ + STEP, y, alpha, gamma), definition(z_ - STEP, y, alpha, gamma)
        return float(definition(z_, y, alpha, gamma)), float((up - down) / (2 * STEP))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
def test_value_and_gradient_are_those_of_the_definition(alpha: float | None, gamma: float) -> None:
    labels = [0.0, 1.0, 0.3]
    logits = torch.tensor(LOGITS * 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([y for y in labels for _ in LOGITS], dtype=torch.float64)
    values = Focal(alpha, gamma, reducer=EACH)(logits, targets)
    values.sum().backward()
    assert logits.grad is not None
    for z, y, value, slope in zip(
        logits.tolist(), targets.tolist(), values.tolist(), logits.grad.tolist(), strict=True
    ):
        expected, expected_slope = value_and_slope(z, y, alpha, gamma)
        # Relative however small, down to where float64 ends.
        assert value == pytest.approx(expected, rel=1e-11, abs=1e-300), (z, y)
        assert slope == pytest.approx(expected_slope, rel=1e-11, abs=1e-300), (z, y)


@settings(deadline=None, max_examples=40)
@given(
    z=st.floats(-80, 80),
    y=st.sampled_from([0.0, 1.0]),
    alpha=st.one_of(st.none(), st.floats(0.01, 0.99)),
    gamma=st.one_of(st.just(0.0), st.floats(0.1, 6)),
)
def test_any_logit_has_the_defined_loss(z: float, y: float, alpha: float | None, gamma: float) -> None:
    found = Focal(alpha, gamma)(torch.tensor([z], dtype=torch.float64), torch.tensor([y])).item()
    assert found == pytest.approx(value_and_slope(z, y, alpha, gamma)[0], rel=1e-11, abs=1e-300)


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(5)
    logits = 4 * torch.randn(12, 7, generator=random, dtype=torch.float64)
    return logits.to(dtype).requires_grad_(), (torch.rand(12, 7, generator=random) < 0.2).to(dtype)


def test_gradcheck_for_logits_and_soft_targets() -> None:
    logits, _ = batch()
    soft = torch.rand(12, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(Focal(0.3, 1.5, reducer=EACH), (logits[:3], soft[:3]))


def test_a_second_derivative_is_refused_rather_than_zero() -> None:
    logits, targets = batch()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(Focal()(logits, targets) + logits.square().sum(), logits, create_graph=True)


def test_neither_pieces_nor_strides_make_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = batch()
    value = Focal()(logits, targets)
    (expected,) = torch.autograd.grad(value, logits)
    monkeypatch.setattr(dense_loss, "PIECE", 5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    turned = logits.detach().t().contiguous().t().requires_grad_()
    found = Focal()(turned, targets)
    torch.testing.assert_close(found, value, rtol=1e-14, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, turned)[0], expected, rtol=1e-13, atol=0)


def test_each_element_gets_the_gradient_of_its_own_loss() -> None:
    logits, targets = batch()
    weights = torch.arange(12, dtype=torch.float64) - 3
    (together,) = torch.autograd.grad((Focal(reducer=EACH)(logits, targets) * weights).sum(), logits)
    (plain,) = torch.autograd.grad(Focal(reducer=Sum())(logits, targets), logits)
    torch.testing.assert_close(together, weights[:, None] * plain)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_hard_targets_agree_with_torchvision(alpha: float | None, gamma: float) -> None:
    logits, targets = batch()
    theirs = sigmoid_focal_loss(logits, targets, alpha=-1 if alpha is None else alpha, gamma=gamma).sum(1)
    values = Focal(alpha, gamma, reducer=EACH)(logits, targets)
    torch.testing.assert_close(values, theirs, rtol=1e-9, atol=1e-12)
    ours_grad, their_grad = (torch.autograd.grad(loss.sum(), logits)[0] for loss in (values, theirs))
    torch.testing.assert_close(ours_grad, their_grad, rtol=1e-8, atol=1e-12)


def test_without_focus_it_is_cross_entropy() -> None:
    logits, targets = batch()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    torch.testing.assert_close(Focal(None, 0.0)(logits, targets), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 2.0])
def test_saturated_logits_have_finite_gradients(dtype: torch.dtype, gamma: float) -> None:
    logits = torch.tensor([-3e4, -100, 100, 3e4] * 2, dtype=dtype, requires_grad=True)
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    values = Focal(gamma=gamma, reducer=EACH)(logits, targets)
    values.sum().backward()
    assert values.isfinite().all()
    assert logits.grad is not None
    # What is wrong is pushed with its weight, what is right is left alone.
    expected = torch.tensor([0, 0, 0.75, 0.75, -0.25, -0.25, 0, 0], dtype=torch.float64)
    tolerance = 5e-3 if dtype in (torch.float16, torch.bfloat16) else 1e-4
    torch.testing.assert_close(logits.grad.double(), expected, rtol=tolerance, atol=1e-2 if gamma == 0.1 else 1e-6)


def test_torchvision_has_no_gradient_there() -> None:
    """Why the form is another; when this fails, the contrast in the documentation is out of date."""
    logits = torch.tensor([100.0], requires_grad=True)
    sigmoid_focal_loss(logits, torch.ones(1), gamma=0.5).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_near_float64(dtype: torch.dtype) -> None:
    logits, targets = batch(dtype)
    values = Focal(reducer=EACH)(logits, targets)
    assert values.dtype == torch.float32
    expected = Focal(reducer=EACH)(logits.detach().double(), targets.double())
    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-7)


def test_targets_may_be_of_any_dtype() -> None:
    logits, targets = batch()
    expected = Focal()(logits, targets)
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float32):
        torch.testing.assert_close(Focal()(logits, targets.to(dtype)), expected, rtol=0, atol=0)


def test_classes_are_summed_and_independent() -> None:
    logits, targets = batch()
    each = torch.stack([Focal(reducer=EACH)(logits[:, c], targets[:, c]) for c in range(7)], 1)
    torch.testing.assert_close(Focal(reducer=EACH)(logits, targets), each.sum(1))
    assert Focal()(logits, targets).item() == pytest.approx(each.sum().item() / 12)


def test_the_mean_may_be_over_positives() -> None:
    logits, targets = batch()
    total = Focal(reducer=Sum())(logits, targets)
    positives = int(targets.sum())
    assert positives > 1
    by_positives = Focal(normalizer="positives")
    torch.testing.assert_close(by_positives(logits, targets), total / positives)
    nothing = torch.zeros_like(targets)
    torch.testing.assert_close(by_positives(logits, nothing), Focal(reducer=Sum())(logits, nothing))
    faint = nothing.index_fill(0, torch.tensor(0), 0.05)  # positives that add up to less than one
    torch.testing.assert_close(by_positives(logits, faint), Focal(reducer=Sum())(logits, faint))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
@pytest.mark.parametrize("normalizer", [None, "positives"])
def test_a_mean_over_nothing_is_zero_and_fills_the_gradients(shape: tuple[int, ...], normalizer: str | None) -> None:
    logits, targets = torch.zeros(shape, requires_grad=True), torch.zeros(shape, requires_grad=True)
    value = Focal(normalizer=normalizer)(logits, targets)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert targets.grad is not None


def test_foreign_reducers_see_one_value_an_element() -> None:
    logits, targets = batch()
    value = Focal(reducer=pml.MeanReducer())(logits, targets)
    torch.testing.assert_close(value, Focal()(logits, targets))


@pytest.mark.parametrize(
    ("logits", "targets", "words"),
    [
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), "one-hot"),
        (torch.zeros(3), torch.zeros(4), "differ in shape"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), r"\(n, classes\)"),
        (torch.zeros(3, dtype=torch.int64), torch.zeros(3), "floating"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), "from 0 to 2"),
        (torch.zeros(2), torch.tensor([-0.5, 1.0]), "from -0.5 to 1"),
        (torch.zeros(2), torch.tensor([float("nan"), 1.0]), "nan"),
        (torch.zeros(2), torch.zeros(2, device="meta"), "meta"),
    ],
)
def test_what_does_not_fit_is_said(logits: Tensor, targets: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Focal()(logits, targets)


@pytest.mark.parametrize(
    "arguments",
    [
        {"alpha": -1.0},
        {"alpha": 1.5},
        {"gamma": -0.1},
        {"gamma": float("inf")},
        {"normalizer": "count"},
        {"activation": "relu"},
        {"background": -1},
        {"background": True},
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object]) -> None:
    (name,) = arguments
    with pytest.raises(ArgumentError, match=name):
        Focal(**arguments)  # type: ignore[arg-type]


def test_targets_that_are_all_0_or_1_cost_what_they_cost_beside_one_that_is_not() -> None:
    """The first are computed by one side alone."""
    logits, targets = batch()
    mixed = targets.clone()
    mixed[3, 2] = 0.5
    for gamma in (0.0, 0.5, 1.0, 2.0, 3.0):
        loss = Focal(0.3, gamma, reducer=EACH)
        hard, soft = loss(logits, targets), loss(logits, mixed)
        others = torch.arange(12) != 3
        torch.testing.assert_close(hard[others], soft[others], rtol=1e-13, atol=1e-300)
        by_hard, by_soft = (torch.autograd.grad(values[others].sum(), logits)[0] for values in (hard, soft))
        torch.testing.assert_close(by_hard, by_soft, rtol=1e-12, atol=1e-300)
        given = targets.clone().requires_grad_()  # whose gradient needs both sides
        torch.testing.assert_close(loss(logits, given), hard, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("gamma", [1e-3, 0.999, 10.0, 1e3, 1e6])
def test_any_focus_has_a_finite_gradient(activation: Literal["sigmoid", "softmax"], gamma: float) -> None:
    steps = torch.linspace(-120, 120, 4001)
    for targets in (torch.zeros(4001, 2), torch.ones(4001, 2), torch.full((4001, 2), 0.3)):
        logits = torch.stack((steps, -steps), 1).requires_grad_()
        value = Focal(gamma=gamma, activation=activation)(logits, targets)
        assert value.isfinite()
        assert torch.autograd.grad(value, logits)[0].isfinite().all()


# ---- softmax


def softmax_definition(z: list[Decimal], weights: list[Decimal], gamma: float) -> Decimal:
    """Of logits and what −(1 − p)^γ ln p of each class is multiplied with."""
    total = sum(each.exp() for each in z)
    p = [each.exp() / total for each in z]
    return -sum(w * (1 - each) ** Decimal(gamma) * each.ln() for w, each in zip(weights, p, strict=True) if w)


ROWS = [[0.3, -1.0, 2.0], [0.0, 0.0, 0.0], [40.0, -3.0, 1.0], [-60.0, 5.0, 70.0], [1e-3, 30.0, -30.0]]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize(("alpha", "background"), [(None, 0), (0.25, 0), (0.25, 2)])
def test_a_softmax_of_class_ids_is_its_definition(alpha: float | None, background: int, gamma: float) -> None:
    logits = torch.tensor([row for row in ROWS for _ in range(3)], dtype=torch.float64, requires_grad=True)
    ids = torch.arange(3).repeat(len(ROWS))
    values = Focal(alpha, gamma, None, "softmax", background, reducer=EACH)(logits, ids)
    (slopes,) = torch.autograd.grad(values.sum(), logits)
    for z, y, value, slope in zip(logits.tolist(), ids.tolist(), values.tolist(), slopes.tolist(), strict=True):
        with localcontext() as context:
            context.prec = 120
            weights = [Decimal(0)] * 3
            share = 1.0 if alpha is None else 1 - alpha if y == background else alpha
            weights[y] = Decimal(share)
            exact = [Decimal(each) for each in z]
            near = {"rel": 1e-11, "abs": 1e-15}
            assert value == pytest.approx(float(softmax_definition(exact, weights, gamma)), **near)
            for c in range(3):
                up, down = ([e + d * (i == c) for i, e in enumerate(exact)] for d in (STEP, -STEP))
                change = softmax_definition(up, weights, gamma) - softmax_definition(down, weights, gamma)
                assert slope[c] == pytest.approx(float(change / (2 * STEP)), **near), (z, y, c)


def test_a_softmax_of_probabilities_is_the_expectation_over_class_ids() -> None:
    logits, _ = batch()
    shares = torch.rand(12, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    loss = Focal(0.3, 1.5, activation="softmax", background=6, reducer=EACH)
    by_class = torch.stack([loss(logits, torch.full((12,), c)) for c in range(7)], 1)
    torch.testing.assert_close(loss(logits, shares), (by_class * shares).sum(1))
    assert torch.autograd.gradcheck(loss, (logits[:3], shares[:3]))
    ids = torch.arange(12) % 7
    torch.testing.assert_close(loss(logits, F.one_hot(ids, 7)), loss(logits, ids))


def test_a_softmax_without_focus_is_cross_entropy() -> None:
    logits, _ = batch()
    ids = torch.arange(12) % 7
    found = Focal(None, 0.0, activation="softmax")(logits, ids)
    torch.testing.assert_close(found, F.cross_entropy(logits, ids))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_saturated_softmax_is_finite_and_a_right_one_costs_nothing(dtype: torch.dtype, gamma: float) -> None:
    ids = torch.arange(5)
    right = (1e3 * F.one_hot(ids)).to(dtype)
    loss = Focal(None, gamma, activation="softmax", reducer=EACH)
    for logits in (right, -right, 30 * right, -30 * right):
        given = logits.clone().requires_grad_()
        values = loss(given, ids)
        (gradient,) = torch.autograd.grad(values.sum(), given)
        assert values.dtype == torch.promote_types(dtype, torch.float32)
        assert values.isfinite().all()
        assert gradient.isfinite().all()
        assert bool(values.any()) == bool(gradient.any()) == bool((logits < 0).any())


def test_the_positives_of_a_softmax_are_what_is_not_background() -> None:
    logits, _ = batch()
    ids = torch.tensor([6, 6, 6, 1, 6, 2, 6, 6, 0, 6, 6, 6])
    total = Focal(activation="softmax", background=6, reducer=Sum())(logits, ids)
    by_positives = Focal(normalizer="positives", activation="softmax", background=6)
    torch.testing.assert_close(by_positives(logits, ids), total / 3)
    torch.testing.assert_close(by_positives(logits, F.one_hot(ids, 7)), total / 3)
    nothing = torch.full((12,), 6)
    torch.testing.assert_close(
        by_positives(logits, nothing), Focal(activation="softmax", background=6, reducer=Sum())(logits, nothing)
    )


@pytest.mark.parametrize(
    ("logits", "targets", "words"),
    [
        (torch.zeros(3), torch.zeros(3), r"\(n, classes\)"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), "from 0 to 1.*to 2"),
        (torch.zeros(3, 2), torch.tensor([0, -100, 1]), "from -100"),
        (torch.zeros(3, 2), torch.zeros(3), "integer"),
        (torch.zeros(3, 2), torch.zeros(3, 3), "differ in shape"),
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), "background = 1"),
    ],
)
def test_what_does_not_fit_a_softmax_is_said(logits: Tensor, targets: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Focal(activation="softmax", background=1)(logits, targets)


def test_a_softmax_has_no_second_derivative_either() -> None:
    logits, _ = batch()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(Focal(activation="softmax")(logits, torch.arange(12) % 7), logits, create_graph=True)
