"""Losses on scores against their definitions in many digits, and torch where it has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction, Sum
from nearfar_iou import dense_loss
from nearfar_iou.cross_entropy import CrossEntropy
from nearfar_iou.dense_loss import DenseLoss
from nearfar_iou.focal import Focal
from nearfar_iou.quality_focal import QualityFocal
from nearfar_iou.varifocal import Varifocal

EACH = NoReduction()
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LOGITS = [-100.0, -30.0, -20.5, -3.0, -1e-3, 0.0, 0.7, 8.0, 19.0, 37.0, 100.0]
QUALITIES = [0.0, 1.0, 0.3, 1e-6]
STEP = Decimal(10) ** -30

Definition = Callable[[Decimal, Decimal], Decimal]


def probability(z: Decimal) -> Decimal:
    return 1 / (1 + (-z).exp())


def entropy(z: Decimal, y: Decimal) -> Decimal:
    return -y * probability(z).ln() - (1 - y) * (1 - probability(z)).ln()


def quality_focal(beta: float) -> Definition:
    return lambda z, y: abs(y - probability(z)) ** Decimal(beta) * entropy(z, y)


def varifocal(alpha: float, gamma: float) -> Definition:
    return lambda z, y: (
        y * entropy(z, y) if y > 0 else -Decimal(alpha) * probability(z) ** Decimal(gamma) * (1 - probability(z)).ln()
    )


#: Losses with a target for every logit, with what they are by definition.
DENSE: list[tuple[Callable[..., DenseLoss], dict[str, float], Definition]] = [
    *[(QualityFocal, {"beta": beta}, quality_focal(beta)) for beta in (0.0, 1.0, 1.7, 2.0, 4.0)],
    *[(Varifocal, {"alpha": a, "gamma": g}, varifocal(a, g)) for a, g in ((0.75, 2.0), (1.0, 0.0), (0.3, 0.5))],
]
every_dense = pytest.mark.parametrize(
    ("kind", "arguments", "definition"), DENSE, ids=lambda x: "" if callable(x) and not isinstance(x, type) else str(x)
)


def slope(f: Callable[[Decimal], Decimal], x: Decimal) -> float:
    return float((f(x + STEP) - f(x - STEP)) / (2 * STEP))


@every_dense
def test_value_and_gradient_are_those_of_the_definition(kind: Any, arguments: Any, definition: Definition) -> None:
    logits = torch.tensor(LOGITS * len(QUALITIES), dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([y for y in QUALITIES for _ in LOGITS], dtype=torch.float64, requires_grad=True)
    values = kind(**arguments, reducer=EACH)(logits, targets)
    by_logits, by_targets = torch.autograd.grad(values.sum(), (logits, targets))
    for row, (z, y) in enumerate(zip(logits.tolist(), targets.tolist(), strict=True)):
        with localcontext() as context:
            context.prec = 150
            z_, y_ = Decimal(z), Decimal(y)
            # Relative however small, but for what a soft target and its score cancel to.
            near = {"rel": 1e-11, "abs": 1e-300 if y in (0, 1) else 1e-15}
            assert values[row].item() == pytest.approx(float(definition(z_, y_)), **near), (z, y)
            expected = slope(lambda x, y_=y_: definition(x, y_), z_)
            assert by_logits[row].item() == pytest.approx(expected, **near), (z, y)
            if 0 < y < 1:
                expected = slope(lambda x, z_=z_: definition(z_, x), y_)
                assert by_targets[row].item() == pytest.approx(expected, rel=1e-10, abs=1e-14), (z, y)


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits and qualities (12, 7), one in five above 0."""
    random = torch.Generator().manual_seed(5)
    logits = 4 * torch.randn(12, 7, generator=random, dtype=torch.float64)
    qualities = torch.rand(12, 7, generator=random, dtype=torch.float64)
    return logits.to(dtype).requires_grad_(), (qualities * (torch.rand(12, 7, generator=random) < 0.2)).to(dtype)


@every_dense
def test_gradcheck_for_logits_and_qualities(kind: Any, arguments: Any, definition: Any) -> None:
    logits, targets = (each[:3] for each in batch())
    positive = targets.clamp_min(0.1).requires_grad_()
    assert torch.autograd.gradcheck(kind(**arguments, reducer=EACH), (logits, positive))
    assert torch.autograd.gradcheck(lambda z: kind(**arguments, reducer=EACH)(z, targets), (logits,))


@every_dense
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_beyond_doubt_and_right_costs_nothing(
    kind: Any, arguments: Any, definition: Any, dtype: torch.dtype
) -> None:
    targets = (torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.3).to(dtype)
    logits = (1e3 * (2 * targets - 1)).requires_grad_()
    values = kind(**arguments, reducer=EACH)(logits, targets)
    assert values.dtype == torch.promote_types(dtype, torch.float32)
    assert not values.any()
    assert not torch.autograd.grad(values.sum(), logits)[0].any()


@every_dense
@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_logits_stay_finite(kind: Any, arguments: Any, definition: Any, dtype: torch.dtype) -> None:
    logits = torch.tensor([-3e4, -100, 100, 3e4] * 3, dtype=dtype, requires_grad=True)
    targets = torch.tensor([0.0] * 4 + [1.0] * 4 + [0.5] * 4, dtype=dtype)
    values = kind(**arguments, reducer=EACH)(logits, targets)
    assert values.isfinite().all()
    assert torch.autograd.grad(values.sum(), logits)[0].isfinite().all()


@every_dense
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_near_float64(kind: Any, arguments: Any, definition: Any, dtype: torch.dtype) -> None:
    logits, targets = batch(dtype)
    values = kind(**arguments, reducer=EACH)(logits, targets)
    assert values.dtype == torch.float32
    expected = kind(**arguments, reducer=EACH)(logits.detach().double(), targets.double())
    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-6)


@every_dense
def test_neither_pieces_nor_strides_make_a_difference(
    kind: Any, arguments: Any, definition: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, targets = batch()
    value = kind(**arguments)(logits, targets)
    (expected,) = torch.autograd.grad(value, logits)
    monkeypatch.setattr(dense_loss, "PIECE", 5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    turned = logits.detach().t().contiguous().t().requires_grad_()
    found = kind(**arguments)(turned, targets)
    torch.testing.assert_close(found, value, rtol=1e-14, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, turned)[0], expected, rtol=1e-13, atol=0)


@every_dense
@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
def test_a_mean_over_nothing_is_zero_and_fills_the_gradients(
    kind: Any, arguments: Any, definition: Any, shape: tuple[int, ...]
) -> None:
    for normalizer in (None, "positives"):
        logits, targets = torch.zeros(shape, requires_grad=True), torch.zeros(shape, requires_grad=True)
        value = kind(**arguments, normalizer=normalizer)(logits, targets)
        value.backward()
        assert value.item() == 0
        assert logits.grad is not None
        assert targets.grad is not None


@every_dense
def test_the_mean_may_be_over_positives_whatever_their_quality(kind: Any, arguments: Any, definition: Any) -> None:
    logits, targets = batch()
    total, positives = kind(**arguments, reducer=Sum())(logits, targets), int((targets > 0).sum())
    assert positives > 1
    assert kind(**arguments, normalizer="positives")(logits, targets).item() == pytest.approx(total.item() / positives)
    with pytest.raises(ArgumentError, match="normalizer"):
        kind(normalizer="count")


def test_a_quality_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, targets = batch()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    torch.testing.assert_close(QualityFocal(0.0)(logits, targets), expected)


def test_a_quality_focal_loss_is_least_where_the_score_is_the_quality() -> None:
    quality = torch.tensor([0.05, 0.3, 0.5, 0.999], dtype=torch.float64)
    for beta in (0.3, 1.0, 2.0):
        loss = QualityFocal(beta, reducer=EACH)
        at = quality.logit().requires_grad_()
        values = loss(at, quality)
        assert values.max() < (1e-30 if beta == 2 else 1e-4)
        assert torch.autograd.grad(values.sum(), at)[0].isfinite().all()
        for off in (-0.1, 0.1):
            assert (loss(at + off, quality) > values).all()


def test_a_varifocal_loss_is_least_where_the_score_is_the_quality() -> None:
    quality = torch.tensor([0.05, 0.3, 0.5, 0.999], dtype=torch.float64)
    at = quality.logit().requires_grad_()
    values = Varifocal(reducer=EACH)(at, quality)
    torch.testing.assert_close(values, quality * F.binary_cross_entropy(quality, quality, reduction="none"))
    torch.testing.assert_close(torch.autograd.grad(values.sum(), at)[0], torch.zeros(4).double(), rtol=0, atol=1e-15)


def test_weights_and_normalisers_are_the_callers() -> None:
    logits, targets = batch()
    ids = targets.argmax(1)
    weights = torch.arange(12.0)
    for loss, given in ((Focal, targets), (QualityFocal, targets), (CrossEntropy, ids)):
        each = loss(reducer=EACH)(logits, given)  # type: ignore[operator]
        torch.testing.assert_close(loss()(logits, given, weights), (each * weights).mean())  # type: ignore[operator]
        torch.testing.assert_close(
            loss()(logits, given, weights, torch.tensor(3)),  # type: ignore[operator]
            (each * weights).sum() / 3,
        )
    with pytest.raises(InputError, match="logit_weights"):
        Focal()(logits, targets, weights[:3])
    for wrong in (-1, float("inf"), torch.zeros(2)):
        with pytest.raises(InputError, match="logit_normalizer"):
            Focal()(logits, targets, None, wrong)


def test_arguments_out_of_range_are_refused() -> None:
    for kind, name in ((QualityFocal, "beta"), (Varifocal, "alpha"), (Varifocal, "gamma")):
        for value in (-0.1, math.inf, math.nan):
            with pytest.raises(ArgumentError, match=name):
                kind(**{name: value})  # type: ignore[arg-type]


# ---- cross-entropy


def smoothed(logits: Tensor, ids: Tensor, smoothing: float) -> Tensor:
    classes = logits.shape[1]
    wanted = (1 - smoothing) * F.one_hot(ids, classes).double() + smoothing / classes
    return -(wanted * (logits - logits.logsumexp(1, keepdim=True))).sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_its_definition(smoothing: float) -> None:
    logits, targets = batch()
    ids = targets.argmax(1)
    loss = CrossEntropy(smoothing, reducer=EACH)
    torch.testing.assert_close(loss(logits, ids), smoothed(logits, ids, smoothing), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda z: loss(z, ids), (logits,))


def test_smoothed_targets_have_the_least_that_the_documentation_says() -> None:
    smoothing, classes = 0.1, 7
    apart = math.log((classes - smoothing * (classes - 1)) / smoothing)
    logits = (apart * F.one_hot(torch.tensor([2]), classes).double()).requires_grad_()
    (gradient,) = torch.autograd.grad(CrossEntropy(smoothing)(logits, torch.tensor([2])), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-15)


@pytest.mark.parametrize("ignored", [-100, 255, 2])
def test_ignored_elements_cost_nothing_and_are_not_counted(ignored: int) -> None:
    logits, targets = batch()
    ids = targets.argmax(1)
    left_out = torch.arange(12) % 3 == 0
    marked = torch.where(left_out, ignored, torch.where(ids == ignored, 0, ids))
    found = CrossEntropy(0.1, ignored)(logits, marked)
    kept = smoothed(logits[~left_out], marked[~left_out], 0.1).mean()
    torch.testing.assert_close(found, kept)
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient[left_out].any()
    assert gradient[~left_out].any(1).all()
    torch.testing.assert_close(
        found, F.cross_entropy(logits, marked, ignore_index=ignored, label_smoothing=0.1), rtol=1e-12, atol=0
    )


def test_a_batch_of_nothing_but_ignored_elements_costs_nothing() -> None:
    """Where torch's mean is not a number."""
    logits, ids = torch.randn(3, 4, requires_grad=True), torch.full((3,), -100)
    value = CrossEntropy(ignore_index=-100)(logits, ids)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
    assert F.cross_entropy(logits.detach(), ids).isnan()


def test_nothing_is_ignored_unasked() -> None:
    with pytest.raises(InputError, match=r"from 0 to 3.*from -100 to 0"):
        CrossEntropy()(torch.zeros(2, 4), torch.tensor([-100, 0]))
    with pytest.raises(InputError, match=r"from 0 to 3.*to 4"):
        CrossEntropy(ignore_index=-100)(torch.zeros(3, 4), torch.tensor([-100, 0, 4]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_class_ids_of_any_dtype_and_logits_of_any_precision(dtype: torch.dtype) -> None:
    logits, targets = batch(dtype)
    for ids in (targets.argmax(1).to(kind) for kind in (torch.uint8, torch.int16, torch.int32, torch.int64)):
        value = CrossEntropy()(logits, ids)
        assert value.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(
            value.double(), F.cross_entropy(logits.detach().double(), ids.long()), rtol=1e-6, atol=0
        )
    right = 1e3 * F.one_hot(targets.argmax(1), 7).to(dtype)
    assert CrossEntropy()(right, targets.argmax(1)).item() == 0


def test_an_empty_batch_of_classes_costs_nothing() -> None:
    logits = torch.zeros(0, 4, requires_grad=True)
    for loss in (CrossEntropy(0.1), CrossEntropy(ignore_index=7), Focal(activation="softmax")):
        value = loss(logits, torch.zeros(0, dtype=torch.int64))
        value.backward()
        assert value.item() == 0
    assert logits.grad is not None


@pytest.mark.parametrize(
    ("logits", "targets", "words"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 2), r"of shape \(3,\), one class id"),
        (torch.zeros(3, 2), torch.zeros(1, dtype=torch.int64), "one class id"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), r"\(n, classes\)"),
        (torch.zeros(3, 2), torch.zeros(3), "integer dtype"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool), "integer dtype"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), "floating"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64, device="meta"), "meta"),
    ],
)
def test_what_is_no_class_id_is_said(logits: Tensor, targets: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        CrossEntropy()(logits, targets)


def test_what_cross_entropy_cannot_be_made_with_is_said() -> None:
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(ArgumentError, match="label_smoothing"):
            CrossEntropy(value)
    for ignored in (1.5, True, "none"):
        with pytest.raises(ArgumentError, match="ignore_index"):
            CrossEntropy(ignore_index=ignored)  # type: ignore[arg-type]
