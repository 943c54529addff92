"""Distribution focal loss against its definition."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction
from nearfar_iou.distribution_focal import DistributionFocal

EACH = NoReduction()
BINS = 6


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits (9, 4, bins) and distances (9, 4), whole ones and the ends of the range among them."""
    random = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(9, 4, BINS, generator=random, dtype=torch.float64)
    distances = (BINS - 1) * torch.rand(9, 4, generator=random, dtype=torch.float64)
    distances[0] = torch.tensor([0.0, 1.0, BINS - 2, BINS - 1])
    return logits.to(dtype).requires_grad_(), distances.to(dtype)


def definition(logits: list[float], y: float) -> float:
    i = min(math.floor(y), len(logits) - 2)
    total = math.log(sum(math.exp(z) for z in logits))
    return -(i + 1 - y) * (logits[i] - total) - (y - i) * (logits[i + 1] - total)


def test_the_value_is_the_definitions() -> None:
    logits, distances = batch()
    each = [
        [definition(z, y) for z, y in zip(*row, strict=True)]
        for row in zip(logits.tolist(), distances.tolist(), strict=True)
    ]
    sums = [sum(row) for row in each]
    assert DistributionFocal("sum", reducer=EACH)(logits, distances).tolist() == pytest.approx(sums, rel=1e-12)
    means = [total / 4 for total in sums]
    assert DistributionFocal(reducer=EACH)(logits, distances).tolist() == pytest.approx(means, rel=1e-12)
    assert DistributionFocal()(logits, distances).item() == pytest.approx(sum(means) / 9, rel=1e-12)
    flat = DistributionFocal(reducer=EACH)(logits.reshape(-1, BINS), distances.reshape(-1))
    assert flat.tolist() == pytest.approx([value for row in each for value in row], rel=1e-12)


def test_gradcheck_for_logits_and_distances() -> None:
    logits, distances = batch()
    between = distances.floor().clamp_max(BINS - 2).add_(0.3).requires_grad_()
    assert torch.autograd.gradcheck(DistributionFocal(reducer=EACH), (logits, between))


def test_it_is_cross_entropy_where_the_distance_is_whole() -> None:
    logits, _ = batch()
    whole = torch.randint(BINS, (9, 4), generator=torch.Generator().manual_seed(0))
    expected = F.cross_entropy(logits.reshape(-1, BINS), whole.reshape(-1))
    torch.testing.assert_close(DistributionFocal()(logits, whole.double()), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(DistributionFocal()(logits, whole), expected, rtol=1e-12, atol=0)


def test_the_mean_of_the_best_distribution_is_the_distance() -> None:
    distances = torch.tensor([0.25, 3.5, 4.9])
    logits = torch.zeros(3, BINS, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=300, line_search_fn="strong_wolfe")

    def step() -> float:
        optimizer.zero_grad()
        value = DistributionFocal()(logits, distances)
        value.backward()
        return value.item()

    optimizer.step(step)
    torch.testing.assert_close(logits.detach().softmax(1) @ torch.arange(6.0), distances, rtol=0, atol=1e-2)


def test_beyond_the_last_bin_is_the_last_and_the_callers_distances_stay_as_they_are() -> None:
    """Where an upper neighbour would be out of range, and where ultralytics writes into what it is given."""
    logits, _ = batch()
    given = torch.tensor([[-2.0, 5.0, 5.01, 1e9]], dtype=torch.float64)
    before = given.clone()
    value = DistributionFocal()(logits[:1], given)
    assert torch.equal(given, before)
    ends = torch.tensor([[0, 5, 5, 5]])
    torch.testing.assert_close(value, DistributionFocal()(logits[:1], ends), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_precision_is_near_float64_and_saturated_logits_are_finite(dtype: torch.dtype) -> None:
    logits, distances = batch(dtype)
    value = DistributionFocal()(logits, distances)
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    expected = DistributionFocal()(logits.detach().double(), distances.double())
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    wrong = (3e4 * torch.sign(logits.detach())).requires_grad_()
    value = DistributionFocal()(wrong, distances)
    assert value.isfinite()
    assert torch.autograd.grad(value, wrong)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_all_weight_on_a_whole_distance_costs_nothing(dtype: torch.dtype) -> None:
    whole = torch.arange(BINS)
    logits = (1e3 * F.one_hot(whole)).to(dtype).requires_grad_()
    values = DistributionFocal(reducer=EACH)(logits, whole)
    assert not values.any()
    assert not torch.autograd.grad(values.sum(), logits)[0].any()


@pytest.mark.parametrize("shape", [(0,), (0, 4)])
def test_an_empty_batch_costs_nothing_and_fills_the_gradients(shape: tuple[int, ...]) -> None:
    logits, distances = torch.zeros(*shape, BINS, requires_grad=True), torch.zeros(shape, requires_grad=True)
    value = DistributionFocal()(logits, distances)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert distances.grad is not None


def test_boxes_may_be_weighted_by_their_quality() -> None:
    logits, distances = batch()
    quality = torch.linspace(0, 1, 9)
    each = DistributionFocal(reducer=EACH)(logits, distances)
    found = DistributionFocal()(logits, distances, quality, quality.sum())
    torch.testing.assert_close(found, (each * quality).sum() / quality.sum())


@pytest.mark.parametrize(
    ("logits", "distances", "words"),
    [
        (torch.zeros(3, 4, 6), torch.zeros(3), r"\(3, 4, 6\) and \(3,\)"),
        (torch.zeros(3, 4, 6), torch.zeros(1, 4), "target_distances"),
        (torch.zeros(3, 24), torch.zeros(3, 4), r"\(n, 4, bins\)"),
        (torch.zeros(3, 4, 1), torch.zeros(3, 4), "two bins"),
        (torch.zeros(3, 4, 6, dtype=torch.int64), torch.zeros(3, 4), "floating"),
        (torch.zeros(3, 4, 6), torch.full((3, 4), float("nan")), "no number"),
        (torch.zeros(3, 4, 6), torch.zeros(3, 4, device="meta"), "meta"),
    ],
)
def test_what_does_not_fit_is_said(logits: Tensor, distances: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        DistributionFocal()(logits, distances)


def test_what_it_cannot_be_made_with_is_said() -> None:
    with pytest.raises(ArgumentError, match="'mean', 'sum'"):
        DistributionFocal("none")  # type: ignore[arg-type]
