"""What goes wrong in pytorch-metric-learning 2.9, and must not here."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.nn.batch import Batch
from nearfar.nn.reducers import PerAnchor, Sum
from nearfar_pair import plugin

#: Those that compare pairs; the others have their own tests.
NAMES = [spec.name for spec in plugin.nearfar_losses() if spec.accepts and spec.family != "wrapper"]
UNEVEN = [5, 5, 1, 5, 2, 5, 7, 2, 5, 1, 5, 9, 5]
REFERENCE = [5, 1, 0, 0, 2, 9, 2, 5, 5, 1, 8]


def make(name: str, **arguments: Any) -> Any:
    return nearfar.create_loss(f"pair.{name}", **arguments).double()


def test_smooth_ap_takes_classes_of_any_sizes_in_any_order() -> None:
    """Theirs takes the samples of a class for the number of classes, and consecutive rows for a class."""
    for labels in ([0, 1, 0, 1], [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 1, 1], [0, 1, 2, 0, 1, 2, 0, 1, 2]):
        y = torch.tensor(labels)
        x = torch.eye(4, dtype=torch.float64)[y]
        assert make("smooth_ap")(x, y).item() == pytest.approx(0, abs=1e-12)


def test_nca_takes_no_sample_for_its_own_neighbour_in_a_memory() -> None:
    """Theirs leaves the diagonal in where the reference set holds the batch: 44 becomes 0."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [-1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 1])
    alone = make("nca", scale=10.0)(x, y)
    same = y[:, None] == y
    pairs = (*torch.where(same & ~torch.eye(4, dtype=torch.bool)), *torch.where(~same))
    assert make("nca", scale=10.0)(x, y, pairs, x.clone(), y).item() == pytest.approx(alone.item(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_reference_set_does_not_matter(name: str, brute: SimpleNamespace) -> None:
    """Their lifted structure compares indices of the batch with indices of the references."""
    x, r = brute.clustered(UNEVEN), brute.clustered(REFERENCE, seed=1)
    y, z = torch.tensor(UNEVEN), torch.tensor(REFERENCE)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
    loss = make(name)
    assert loss(x, y, None, r[order], z[order]).item() == pytest.approx(loss(x, y, None, r, z).item(), rel=1e-10)


def test_threshold_consistent_margin_looks_at_the_reference_set() -> None:
    """Theirs indexes the batch with what indexes the references."""
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    r = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.8, 0.6]], dtype=torch.float64)
    value = make("threshold_consistent_margin")(x, torch.tensor([0]), None, r, torch.tensor([0, 0, 1]))
    assert value.item() == pytest.approx(0.9 + 0.3, rel=1e-12)


def test_angular_normalises_negatives_too_and_heeds_which_were_mined(brute: SimpleNamespace) -> None:
    """Theirs leaves negatives as long as they are, and takes all of them whatever a miner selects."""
    x, y = brute.clustered(UNEVEN), torch.tensor(UNEVEN)
    loss = make("angular")
    assert loss(10 * x, y).item() == pytest.approx(loss(x, y).item(), rel=1e-10)
    costs = {n: loss(x, y, tuple(torch.tensor([i]) for i in (0, 1, 0, n))).item() for n in (2, 4)}
    for n, cost in costs.items():
        a, p, other = (v / v.norm() for v in (x[0], x[1], x[n]))
        exponent = 4 * math.tan(math.radians(40)) ** 2 * (a + p) @ other
        exponent -= 2 * (1 + math.tan(math.radians(40)) ** 2) * a @ p
        assert cost == pytest.approx(math.log1p(math.exp(exponent)), rel=1e-6)
    assert costs[2] != costs[4]


@pytest.mark.parametrize("name", NAMES)
def test_each_anchor_has_its_mean_beside_more_references_than_anchors(name: str, brute: SimpleNamespace) -> None:
    """Their reducer by anchor makes a table as wide as the batch: IndexError."""
    x, y = brute.clustered([5, 1, 0]), torch.tensor([5, 1, 0])
    r, z = brute.clustered(REFERENCE, seed=1), torch.tensor(REFERENCE)
    arguments = {"num_classes": 10} if name == "margin_beta" else {}
    terms = make(name, **arguments).terms(Batch.of(x, y, None, r, z))
    expected = 0.0
    for each in terms.values() if isinstance(terms, dict) else [terms]:
        anchors = each.indices[0]
        means = [each.values[anchors == a].mean().item() for a in anchors.unique()]
        expected += sum(means) / max(1, len(means))
    value = make(name, **arguments, reducer=PerAnchor())(x, y, None, r, z)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_histogram_takes_duplicates() -> None:
    """At a cosine of 1 theirs counts into a bin that is not there."""
    x = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1]].requires_grad_()
    value = make("histogram")(x, torch.tensor([0, 0, 1, 1]))
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("seed", range(20))
def test_tuplet_margin_takes_duplicates(seed: int) -> None:
    """Theirs takes the arc cosine of what rounding has put beyond 1."""
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(seed)).repeat_interleave(2, 0).requires_grad_()
    value = nearfar.create_loss("pair.tuplet_margin")(x, torch.arange(12) // 2)
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_negative_at_distance_zero_costs_the_most() -> None:
    """Theirs takes a loss of a negative that is 0 or a distance of 0 for no pair at all."""

    def cost(apart: float) -> float:
        x = torch.tensor([[1.0, 0.0], [math.cos(apart), math.sin(apart)]], dtype=torch.float64)
        return float(make("ranked_list")(x, torch.tensor([0, 1])))

    assert cost(0.0) == pytest.approx(0.6, rel=1e-12)
    assert cost(0.0) > cost(1e-3) > cost(0.1) > cost(1.5) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("contrastive", 2 + (1 - math.sqrt(0.8)) ** 2),
        ("nt_xent", math.log1p(math.exp(6))),
        ("sup_con", math.log1p(math.exp(6))),
        # The other two anchors, which have no pair, count too.
        ("multi_similarity", (math.log1p(math.exp(2)) / 2 + math.log1p(math.exp(-20)) / 50) / 3),
        ("circle", math.log1p(math.exp(80 * 1.4 * 0.6 + 80 * 1.0 * 0.2))),
        ("triplet", math.sqrt(2) - math.sqrt(0.8) + 0.2),
    ],
)
def test_one_positive_and_one_negative_pair_cost(name: str, expected: float) -> None:
    """Theirs gives 0 for a single pair of each sign."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    indices = tuple(torch.tensor([i]) for i in (0, 1, 0, 2))
    assert make(name)(x, None, indices).item() == pytest.approx(expected, rel=1e-9)


def test_n_pair_minds_the_length_of_embeddings() -> None:
    """Theirs normalises them by default, so that perfect clusters still cost 2.5."""
    y = torch.arange(4).repeat(2)
    x = torch.eye(4, dtype=torch.float64)[y]
    loss = make("n_pair", l2_weight=0.0)
    assert loss(x, y).item() == pytest.approx(math.log(1 + 6 * math.exp(-1)), rel=1e-12)
    assert loss(10 * x, y).item() < 1e-9


def test_all_samples_of_a_class_count_in_n_pair(brute: SimpleNamespace) -> None:
    """Theirs takes the first two of each class."""
    labels = [0, 0, 0, 1, 1, 1]
    x, y = brute.clustered(labels), torch.tensor(labels)
    moved = x.clone()
    moved[5] *= -1
    assert make("n_pair")(x, y) != make("n_pair")(moved, y)


def test_a_positive_pair_without_a_negative_costs_nothing_in_lifted_structure() -> None:
    """Theirs charges half its squared distance."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert make("lifted_structure")(x, torch.tensor([0, 0])).item() == 0


def test_an_anchor_without_a_positive_is_left_out_of_generalized_lifted() -> None:
    """Theirs charges it for its negatives."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    terms_of = make("generalized_lifted", reducer=Sum())
    lone = terms_of(x, torch.tensor([0, 1, 2]))
    assert lone.item() == 0


def test_the_weights_of_ranked_list_are_constants() -> None:
    """Theirs lets the gradient through them."""
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]], dtype=torch.float64, requires_grad=True)
    loss = make("ranked_list", balance=1.0, reducer=Sum())
    indices = tuple(torch.tensor(i) for i in ([], [], [0, 0], [1, 2]))
    loss(x, None, tuple(i.long() for i in indices)).backward()
    d = [math.sqrt(0.8), math.sqrt(0.4)]
    weights = [math.exp(10 * (1.2 - each)) for each in d]
    pulls = [w / sum(weights) / each for w, each in zip(weights, d, strict=True)]
    # −w (x − y) / d, less what lies along x, as embeddings are normalised.
    expected = -(pulls[0] * torch.tensor([0.4, -0.8]) + pulls[1] * torch.tensor([0.2, -0.6])).double()
    assert x.grad is not None
    assert x.grad[0, 1].item() == pytest.approx(expected[1].item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_finite_far_from_the_optimum(name: str) -> None:
    x = torch.randn(12, 8, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    value: Tensor = nearfar.create_loss(f"pair.{name}")(x, torch.arange(12) % 4)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
