"""Losses on views, centroids, quadruplets and running histograms are what their papers say."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.errors import ArgumentError, InputError
from nearfar.nn.batch import Batch
from nearfar.nn.reducers import NoReduction
from nearfar.testing.meter import most_elements
from nearfar_pair import sides
from nearfar_pair.losses.dynamic_soft_margin import DynamicSoftMargin
from nearfar_pair.losses.quadruplet import Quadruplet
from nearfar_pair.losses.vicreg import VICReg

LABELS = [3, 0, 3, 1, 0, 3, 2, 1, 0, 4]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- decoupled contrastive, weighted


def test_far_positives_weigh_more_in_dclw() -> None:
    """A positive pair at cosine 0.6 and its turn, one at 0 and its turn: weights 2 − share, which average 1."""
    x = torch.tensor([[1.0, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    loss = nearfar.create_loss("pair.decoupled_contrastive", preset="dclw", temperature=1.0, reducer=NoReduction())
    middle = (math.exp(1.2) + 1) / 2
    near, far = loss(x, torch.tensor([0, 0, 1, 1]))[[0, 2]].tolist()
    assert near == pytest.approx(-(2 - math.exp(1.2) / middle) * 0.6 + math.log(2), rel=1e-12)
    assert far == pytest.approx(math.log(2), rel=1e-12)


# ---- angular


@pytest.mark.parametrize("given", ["labels", "references", "pairs", "rule"])
@pytest.mark.parametrize("angle", [0.0, 0.7, 1.2, 1.5])
def test_products_of_a_small_batch_are_sums_over_pairs(angle: float, given: str) -> None:
    """Values and gradients; an angle too steep for exponentials of float32 is summed over pairs whatever the size."""
    x, r = randn(10, 6).requires_grad_(), randn(7, 6, seed=1).requires_grad_()
    y, z = torch.tensor(LABELS), torch.tensor([3, 0, 5, 1, 0, 3, 2])
    references = (r, z) if given == "references" else ()
    loss = nearfar.create_loss("pair.angular", angle=angle, reducer=NoReduction())
    selection: Any = None
    if given in ("pairs", "rule"):
        selection = nearfar.create_miner("multi_similarity", epsilon=0.0).select(x.detach(), y)
    if given == "pairs":
        selection = selection.indices()

    def found() -> tuple[Tensor, ...]:
        values = loss(x, y, selection, *references)
        weights = torch.arange(1.0, len(values) + 1, dtype=torch.float64)
        inputs = (x, r) if references else (x,)
        return values.detach(), *torch.autograd.grad((values * weights).sum(), inputs)

    by_products = found()
    with mock.patch.object(sides, "SMALL", 0):
        by_pairs = found()
    for one, two in zip(by_products, by_pairs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


# ---- instance


def test_one_classifier_tells_both_modalities() -> None:
    loss = nearfar.create_loss("pair.instance", num_classes=5, embedding_size=3).double()
    x, r, y, z = randn(4, 3), randn(6, 3, seed=1), torch.tensor([0, 4, 2, 2]), torch.tensor([1, 0, 3, 3, 4, 2])
    each = [torch.nn.functional.cross_entropy(a @ loss.weight.T, b) for a, b in ((x, y), (r, z))]
    assert loss(x, y).item() == pytest.approx(each[0].item(), rel=1e-12)
    assert loss(x, y, None, r, z).item() == pytest.approx(sum(each).item(), rel=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [2, 2, 4, 4], [0, 1, 0, 1]])
def test_perfect_clusters_are_better_than_a_collapse(labels: list[int]) -> None:
    """Theirs takes class ids for the columns of a matrix of samples: perfect clusters cost 32.7, a collapse 1.4."""
    y = torch.tensor(labels)
    loss = nearfar.create_loss("pair.instance", num_classes=5, embedding_size=5).double()
    with torch.no_grad():
        loss.weight.copy_(10 * torch.eye(5))
    perfect = torch.eye(5, dtype=torch.float64)[y]
    assert loss(perfect, y).item() < 1e-3
    assert loss(torch.ones_like(perfect), y).item() > 1


# ---- vicreg


def test_vicreg_of_views_that_are_white_and_equal_is_nothing() -> None:
    x = math.sqrt(7 / 8) * torch.tensor(
        [[a, b, c] for a in (-1.0, 1.0) for b in (-1.0, 1.0) for c in (-1.0, 1.0)], dtype=torch.float64
    )
    assert VICReg(deviation=0.99)(x, ref_emb=x.clone()).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(9, 4), (4, 9), (5, 5), (3, 40)])
def test_vicreg_is_the_textbook_covariance_however_many_dimensions(n: int, d: int) -> None:
    x, z = randn(n, d).requires_grad_(), randn(n, d, seed=1).requires_grad_()
    expected = 25 * (x - z).square().mean()
    for view in (x, z):
        C = torch.cov(view.T)
        idle = (1 - (C.diagonal() + 1e-4).sqrt()).clamp_min(0).mean()
        expected = expected + 25 * idle + (C - C.diagonal().diag()).square().sum() / d
    found = VICReg()(x, ref_emb=z)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    by = [torch.autograd.grad(value, (x, z)) for value in (found, expected)]
    for one, two in zip(*by, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


def test_vicreg_makes_no_square_of_many_dimensions() -> None:
    x, z = torch.randn(16, 2048, requires_grad=True), torch.randn(16, 2048)
    assert most_elements(lambda: VICReg()(x, ref_emb=z).backward()) <= 2 * 16 * 2048


def test_vicreg_without_a_second_view_is_refused() -> None:
    """Theirs then leaves out what draws the views together, and says nothing."""
    with pytest.raises(InputError, match="two views"):
        VICReg()(randn(4, 3))
    with pytest.raises(InputError, match="same samples"):
        VICReg()(randn(4, 3), ref_emb=randn(5, 3))
    with pytest.raises(InputError, match="indices_tuple"):
        VICReg()(randn(4, 3), indices_tuple=(torch.tensor([0]),) * 3, ref_emb=randn(4, 3))


def test_vicreg_agrees_with_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    x, z = randn(12, 5), randn(12, 5, seed=1)
    theirs = losses.VICRegLoss()(x, ref_emb=z)
    found = VICReg(reducer=NoReduction())(x, ref_emb=z)
    invariance, variance, covariance = (found[name].mean().item() for name in ("invariance", "variance", "covariance"))
    # Theirs averages the variance of the two views rather than adding them, as the authors' code does.
    assert theirs.item() == pytest.approx(invariance + variance / 2 + covariance, rel=1e-5)


def test_vicreg_in_a_criterion_takes_the_second_view_by_name() -> None:
    x, z = randn(6, 4), randn(6, 4, seed=1)
    assert nearfar.compose("vicreg")(x, ref_emb=z).item() == pytest.approx(VICReg()(x, ref_emb=z).item(), rel=1e-12)


# ---- centroid triplet


def test_an_embedding_is_no_part_of_its_own_centroid() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = nearfar.create_loss("pair.centroid_triplet", reducer=NoReduction())
    # Of class 0 each sees the other alone, squared distance 2, and class 1 at squared distances 4 and 2.
    assert loss(x, torch.tensor([0, 0, 1])).tolist() == pytest.approx([0, 0.3], abs=1e-12)
    assert loss(x, torch.tensor([0, 1, 2])).tolist() == []
    assert loss(x, torch.tensor([0, 0, 0])).tolist() == []


def test_centroids_of_a_reference_set_leave_out_nothing() -> None:
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    r = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    value = nearfar.create_loss("pair.centroid_triplet", margin=5.0)(
        x, torch.tensor([7]), None, r, torch.tensor([7, 7, 9])
    )
    assert value.item() == pytest.approx(2 - math.sqrt(2) - 4 + 5, rel=1e-12)


@pytest.mark.parametrize("name", ["centroid_triplet", "instance", "vicreg"])
def test_what_compares_no_pairs_takes_none(name: str) -> None:
    needs = {"num_classes": 5, "embedding_size": 3} if name == "instance" else {}
    reference = (randn(4, 3), torch.arange(4)) if name == "vicreg" else ()
    index = torch.tensor([0])
    with pytest.raises(InputError, match="indices_tuple"):
        nearfar.create_loss(f"pair.{name}", **needs).double()(
            randn(4, 3), torch.arange(4), (index, index, index), *reference
        )


# ---- quadruplet


def quadruplets(d: list[list[float]], labels: list[int], margin: float) -> dict[tuple[int, int], float]:
    """Positive pair → the mean of what its quadruplets cost, of those that cost something; one after another."""
    n, found = len(labels), {}
    for a in range(n):
        for p in range(n):
            if a == p or labels[a] != labels[p]:
                continue
            costs = []
            for k in range(n):
                for other in range(k + 1, n):
                    if len({labels[a], labels[k], labels[other]}) == 3:
                        costs.append(max(0.0, d[a][p] - d[k][other] + margin))
            costs = [c for c in costs if c > 0]
            found[a, p] = math.fsum(costs) / len(costs) if costs else 0.0
    return found


@pytest.mark.parametrize("kind", ["random", "ties"])
def test_quadruplets_one_by_one(kind: str, brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS) if kind == "random" else brute.grid(len(LABELS), dim=3) + 0.0
    name = "squared" if kind == "random" else "squared_raw"
    loss = Quadruplet(pair_margin=0.7, distance=brute.distances[name][0](), reducer=NoReduction())
    expected = quadruplets(brute.matrix(name, x), LABELS, 0.7)
    assert any(expected.values())
    assert loss(x, torch.tensor(LABELS))["pair"].tolist() == pytest.approx(list(expected.values()), rel=1e-9, abs=1e-12)


def test_two_classes_have_no_quadruplet() -> None:
    loss = Quadruplet(reducer=NoReduction())
    assert not loss(randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1]))["pair"].any()


def test_a_selection_says_which_pairs_a_quadruplet_is_of(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    d = brute.matrix("squared", x)
    # The pair (1, 4) of class 0; of the negative ones only (0, 3) has no end in that class.
    indices = tuple(torch.tensor(i) for i in ([1], [4], [0, 1], [3, 3]))
    found = Quadruplet(pair_margin=5.0, reducer=NoReduction())(x, y, indices)
    assert found["pair"].tolist() == pytest.approx([d[1][4] - d[0][3] + 5.0], rel=1e-9)
    with pytest.raises(InputError, match="class id"):
        Quadruplet()(x, None, indices)


def test_quadruplets_are_precise_in_float32() -> None:
    x, y = randn(256, 16), torch.arange(256) // 4
    expected = Quadruplet()(x, y).item()
    assert Quadruplet()(x.float(), y).item() == pytest.approx(expected, rel=1e-5)


# ---- dynamic soft margin


def pair_at(apart: float) -> tuple[Tensor, Tensor]:
    """A positive pair at one point, and a negative at a distance from both."""
    angle = 2 * math.asin(apart / 2)
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    return x, torch.tensor([0, 0, 1])


def test_a_pair_weighs_as_much_as_were_easier() -> None:
    loss = DynamicSoftMargin(num_bins=5, momentum=0.5).double()
    # Nodes at −2, −1, 0, 1, 2. Both turns of a pair have d = −1: all seen so far is as easy.
    assert loss(*pair_at(1.0)).item() == pytest.approx(-1.0, rel=1e-9)
    assert loss.histogram.tolist() == pytest.approx([0, 1, 0, 0, 0], abs=1e-9)
    # d = −1.5 lies between two nodes: half of what it adds is at −2, the last node at or below it.
    assert loss(*pair_at(1.5)).item() == pytest.approx(-1.5 * 0.25, rel=1e-9)
    assert loss.histogram.tolist() == pytest.approx([0.25, 0.75, 0, 0, 0], abs=1e-9)


def test_calls_may_be_added_up_before_the_backward_pass() -> None:
    """Theirs keeps the graph in its histogram: the second backward pass fails."""
    loss = DynamicSoftMargin()
    for seed in range(3):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        loss(x, torch.arange(8) // 2).backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_the_farthest_positive_beside_the_nearest_negative_has_a_bin() -> None:
    """Theirs has none for a difference of 1.6 and more."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert DynamicSoftMargin().double()(x, torch.tensor([0, 0, 1])).item() == pytest.approx(2, rel=1e-12)


def test_the_histogram_is_state_and_rests_in_evaluation_mode() -> None:
    loss = DynamicSoftMargin()
    loss(torch.randn(8, 4), torch.arange(8) // 2)
    kept = loss.state_dict()["histogram"].clone()
    assert kept.sum().item() == pytest.approx(1, rel=1e-5)
    loss.eval()(torch.randn(8, 4), torch.arange(8) // 2)
    assert torch.equal(loss.histogram, kept)
    other = DynamicSoftMargin()
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.histogram, kept)


def test_a_batch_without_a_pair_leaves_the_histogram() -> None:
    loss = DynamicSoftMargin()
    assert loss(torch.randn(4, 3), torch.arange(4)).item() == 0
    assert not loss.histogram.any()


def test_what_is_no_number_shows_in_the_loss_and_not_in_the_histogram() -> None:
    loss, x, labels = DynamicSoftMargin(), torch.randn(8, 4), torch.arange(8) // 2
    loss(x, labels)
    kept = loss.histogram.clone()
    x[0, 0] = math.nan
    assert loss(x, labels).isnan()
    assert torch.equal(loss.histogram, kept)


def test_a_batch_is_seen_once_whatever_is_asked_of_it() -> None:
    loss, labels = DynamicSoftMargin(num_bins=5, momentum=0.5).double(), torch.arange(8) // 2
    first, second = (torch.randn(8, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss(first, labels)
    other = copy.deepcopy(loss)
    other(second, labels)
    terms = loss.terms(Batch.of(second, labels))
    (by,) = torch.autograd.grad(terms.sum(), second, create_graph=True)
    torch.testing.assert_close(terms.values.sum(), terms.sum())
    torch.autograd.grad(by.sum(), second)
    torch.testing.assert_close(loss.histogram, other.histogram, rtol=0, atol=0)


@pytest.mark.parametrize("num_bins", [1, 2.5, True])
def test_a_histogram_needs_two_nodes(num_bins: Any) -> None:
    with pytest.raises(ArgumentError, match="num_bins"):
        DynamicSoftMargin(num_bins=num_bins)


def test_the_negatives_of_both_ends_count() -> None:
    """The positive's nearest negative stands against the pair where it is nearer than the anchor's."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.6, 0.8]], dtype=torch.float64)
    with mock.patch.object(DynamicSoftMargin, "_see"):
        loss = DynamicSoftMargin(reducer=NoReduction()).double()
        loss.histogram.fill_(1 / 512)
        found = loss(x, torch.tensor([0, 0, 1]))
    d = math.sqrt(2) - math.sqrt(0.36 + 0.04)
    weight = (math.floor((d + 2) * 511 / 4) + 1) / 512
    assert found.tolist() == pytest.approx([weight * d] * 2, rel=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_of_one_point_twice_no_angle_has_a_slope(dtype: torch.dtype, tolerance: float) -> None:
    """By rounding its cosine is below 1 by one pass and 1 by another, where the slope of the angle is anything."""
    x = embeddings_twice(60, dtype)
    labels = torch.arange(60) // 4
    found = []
    for reducer in (None, NoReduction()):
        loss = nearfar.create_loss("pair.arcface_triplet", reducer=reducer or "sum")
        leaf = x.clone().requires_grad_()
        value = loss(leaf, labels).sum()
        value.backward()
        assert leaf.grad is not None
        found.append((value.detach(), leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def embeddings_twice(size: int, dtype: torch.dtype) -> Tensor:
    """Embeddings each of which stands there three times, in no class together."""
    x = torch.randn(size // 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    return x.repeat(3, 1)
