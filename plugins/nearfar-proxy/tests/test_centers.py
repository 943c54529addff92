"""Losses with centres against their papers' formulas, as loops over plain Python numbers."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction
from nearfar_proxy import blocks
from nearfar_proxy.center import Center
from nearfar_proxy.contrastive_center import ContrastiveCenter
from nearfar_proxy.island import Island
from nearfar_proxy.ring import Ring
from nearfar_proxy.triplet_center import TripletCenter

C, D = 6, 4


def batch(n=8, seed=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=g, dtype=torch.float64) * 2, torch.randint(C, (n,), generator=g)


def made(cls, **arguments):
    torch.manual_seed(5)
    return cls(C, D, **arguments).double()


def squared(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def contrastive(loss, x, y):
    c = loss.centers.tolist()
    return [
        squared(a, c[j]) / (2 * (loss.delta + sum(squared(a, c[k]) for k in range(C) if k != j)))
        for a, j in zip(x.tolist(), y.tolist(), strict=True)
    ]


def triplet(loss, x, y):
    c = loss.centers.tolist()
    return [
        max(0.0, squared(a, c[j]) / 2 + loss.margin - min(squared(a, c[k]) / 2 for k in range(C) if k != j))
        for a, j in zip(x.tolist(), y.tolist(), strict=True)
    ]


CASES = [
    (ContrastiveCenter, {}, contrastive),
    (ContrastiveCenter, {"delta": 0.1}, contrastive),
    (TripletCenter, {}, triplet),
    (TripletCenter, {"margin": 0.5}, triplet),
]


@pytest.mark.parametrize(("cls", "arguments", "formula"), CASES)
def test_each_value_is_the_papers(cls, arguments, formula):
    loss = made(cls, **arguments, reducer=NoReduction())
    x, y = batch()
    assert loss(x, y).tolist() == pytest.approx(formula(loss, x, y), rel=1e-12)


@pytest.mark.parametrize(("cls", "arguments", "formula"), CASES)
def test_gradients_are_those_of_finite_differences(cls, arguments, formula):
    loss = made(cls, **arguments)
    x, y = batch()

    def value(x, centers):
        return torch.func.functional_call(loss, {"centers": centers}, (x, y))

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), loss.centers.detach().clone().requires_grad_()))


def test_far_from_the_origin_contrastive_center_keeps_its_digits():
    """‖x‖² − 2 x·c + ‖c‖² would have none left in float32."""
    loss = made(ContrastiveCenter, reducer=NoReduction())
    x, y = batch()
    exact = loss(x, y)
    with torch.no_grad():
        loss.centers += 4096
    near = loss.float()(x.float() + 4096, y)
    torch.testing.assert_close(near, exact.float(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("held", [1, 20])
def test_blocks_of_classes_change_nothing(held, monkeypatch):
    loss, (x, y) = made(TripletCenter, reducer=NoReduction()), batch()
    expected = loss(x, y)
    monkeypatch.setitem(blocks._HELD, "cpu", held)
    torch.testing.assert_close(loss(x, y), expected, rtol=0, atol=0)


def test_one_class_has_no_other_centre():
    with pytest.raises(ArgumentError, match="at least 2"):
        TripletCenter(1, D)


def test_normalized_center_loss_cannot_be_made_small_by_short_embeddings():
    x, y = batch()
    loss = made(Center, normalize=True).eval()
    loss.centers += 0.3
    torch.testing.assert_close(loss(0.001 * x, y), loss(x, y), rtol=1e-12, atol=0)
    units = torch.nn.functional.normalize(x, dim=1)
    torch.testing.assert_close(loss(x, y), ((units - 0.3).square().sum(1) / 2).mean(), rtol=1e-12, atol=0)
    assert made(Center).eval()(0.001 * x, y) < 1e-4


# ---- island


def islands(centers, factor):
    """The sums over pairs, of each centre."""
    found = []
    for j, a in enumerate(centers):
        total = 0.0
        for k, b in enumerate(centers):
            if k != j:
                total += sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b) + 1
        found.append(factor * total)
    return found


def test_island_is_center_loss_and_the_cosines_of_its_centres():
    loss = made(Island, factor=3.0, reducer=NoReduction()).eval()
    loss.centers.normal_()
    x, y = batch()
    found = loss(x, y)
    centers = loss.centers.tolist()
    near = [squared(a, centers[j]) / 2 for a, j in zip(x.tolist(), y.tolist(), strict=True)]
    assert found["center"].tolist() == pytest.approx(near, rel=1e-12)
    assert found["island"].tolist() == pytest.approx(islands(centers, 3.0), rel=1e-12)


def test_islands_drift_apart_by_the_papers_rule():
    loss = made(Island, factor=3.0, alpha=0.5)
    loss.centers.normal_()
    was = loss.centers.tolist()
    x, y = batch()
    plain = Center(C, D, alpha=0.5).double()
    plain.centers.copy_(loss.centers)
    plain(x, y)
    loss(x, y)
    for j in range(C):
        u = [[p / math.hypot(*c) for p in c] for c in was]
        for d in range(D):
            slope = 0.0
            for k in range(C):
                if k != j:
                    dot = sum(p * q for p, q in zip(u[j], u[k], strict=True))
                    slope += (u[k][d] - dot * u[j][d]) / math.hypot(*was[j])
            expected = plain.centers[j, d].item() - 0.5 * 3.0 / (C - 1) * slope
            assert loss.centers[j, d].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_islands_given_to_the_optimiser_have_the_gradient_of_the_value():
    loss = made(Island, update="gradient")
    x, y = batch()

    def value(x, centers):
        return torch.func.functional_call(loss, {"centers": centers}, (x, y))

    centers = torch.randn(C, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (x.requires_grad_(), centers))


def test_of_nothing_selected_islands_cost_nothing():
    x, y = batch()
    assert made(Island)(x, y, (torch.zeros(0, dtype=torch.long),) * 3).item() == 0


# ---- ring


def test_ring_is_half_the_squared_difference_of_lengths():
    x, y = batch()
    loss = Ring(radius=1.5, reducer=NoReduction()).double()
    assert loss(x, y).tolist() == pytest.approx([(math.hypot(*a) - 1.5) ** 2 / 2 for a in x.tolist()], rel=1e-12)


def test_the_radius_starts_as_the_mean_length_of_the_first_batch_in_training():
    x, y = batch()
    loss = Ring().double()
    loss.eval()(x, y)
    assert loss.radius.item() == 1.0
    loss.train()(x, y)
    mean = x.norm(dim=1).mean().item()
    assert loss.radius.item() == pytest.approx(mean, rel=1e-12)
    loss(3 * x, y)
    assert loss.radius.item() == pytest.approx(mean, rel=1e-12)


def test_that_the_radius_has_started_survives_a_checkpoint():
    x, y = batch()
    first, second = Ring().double(), Ring().double()
    first(x, y)
    second.load_state_dict(first.state_dict())
    second(3 * x, y)
    assert second.radius.item() == first.radius.item()


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_batch_that_is_not_finite_does_not_start_the_radius(bad):
    x, y = batch()
    loss = Ring().double()
    loss(x * bad, y)
    loss(x, y)
    assert loss.radius.item() == pytest.approx(x.norm(dim=1).mean().item(), rel=1e-12)


def test_the_radius_is_learned():
    x, y = batch()
    loss = Ring(radius=1.5).double()

    def value(x, radius):
        return torch.func.functional_call(loss, {"radius": radius}, (x, y))

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), loss.radius.detach().clone().requires_grad_()))


def test_ring_takes_no_reference_set():
    x, y = batch()
    with pytest.raises(InputError, match="no ref_emb"):
        Ring()(x, y, None, x.clone(), y)
