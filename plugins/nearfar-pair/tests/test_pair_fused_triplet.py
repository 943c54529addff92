"""Triplets that are summed without being made give what they give when they are made."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nearfar.errors import NearfarWarning
from nearfar.nn import selection as nn_selection
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Euclidean, SquaredEuclidean
from nearfar.nn.reducers import AvgNonZero, Mean, Sum
from nearfar.nn.selection import IndexSelection, TripletRule
from nearfar.nn.terms import MaterialTerms, Terms
from nearfar.testing.meter import most_elements
from nearfar_pair import few_rows, hinges, pair_pass, row_pass, sides, triplet_terms
from nearfar_pair.hardest_triplets import HardestTriplets
from nearfar_pair.losses.triplet import Triplet
from nearfar_pair.miners.all import All
from nearfar_pair.miners.hard import Hard
from nearfar_pair.miners.semihard import SemiHard
from nearfar_pair.triplet_terms import HardestTerms, TripletCost, TripletTerms

BATCHES = {
    "even classes": [2, 0, 1, 1, 0, 2, 2, 1, 0, 1, 0, 2],
    "uneven classes": [5, 5, 1, 5, 2, 5, 7, 2, 5, 1, 5, 9, 5],
    "one large class": [0] * 20 + [1, 2, 2, 1],
    "one class": [4] * 6,
    "only singletons": [3, 1, 2, 0],
    "one embedding": [1],
    "nothing": [],
}
REFERENCES = {"itself": None, "a set": [5, 1, 0, 0, 2, 9, 2, 5, 5, 1, 8], "an empty set": []}
RULES = {
    "all": (-math.inf, math.inf),
    "semihard": (0.0, 0.25),
    "hard": (-math.inf, 0.0),
    "within another margin": (0.0, 0.6),
    "an interval": (-0.2, 0.1),
    "farther": (0.1, math.inf),
}
MARGIN = 0.25
REDUCERS = [Mean, Sum, AvgNonZero]


def made_and_summed(loss: Triplet, batch: Batch, lower: float, upper: float) -> tuple[Terms, Terms]:
    rule = TripletRule(batch, loss.distance, lower, upper)

    def terms(selection: Any) -> Terms:
        return loss.terms(dataclasses.replace(batch, selection=selection))

    made, summed = terms(IndexSelection(rule.indices())), terms(rule)
    assert isinstance(made, MaterialTerms)
    assert isinstance(summed, TripletTerms)
    return made, summed


def relative(a: Tensor, b: Tensor) -> float:
    """Greatest difference, over the greatest value; 0 for two empty tensors."""
    assert a.shape == b.shape
    if not a.numel():
        return 0.0
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-3)).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("distance", ["euclidean", "cosine", "dot"])
@pytest.mark.parametrize("rule", RULES)
def test_sums_counts_and_gradients_agree(
    rule: str, distance: str, reference: str, dtype: torch.dtype, tolerance: float, brute: SimpleNamespace
) -> None:
    loss = Triplet(MARGIN, distance=brute.distances[distance][0]())
    for name, labels in BATCHES.items():
        x = brute.clustered(labels, dtype=dtype).requires_grad_()
        y = torch.tensor(labels, dtype=torch.int64)
        others = REFERENCES[reference]
        r = x if others is None else brute.clustered(others, seed=1, dtype=dtype).requires_grad_()
        z = y if others is None else torch.tensor(others, dtype=torch.int64)
        made, summed = made_and_summed(loss, Batch(x, y, r, z, None, others is None, (x, r)), *RULES[rule])
        assert summed.count() == made.count(), name
        assert summed.count_positive() == made.count_positive(), name
        assert torch.equal(summed.count_by_anchor(), made.count_by_anchor()), name
        assert summed.count().dtype == summed.count_positive().dtype == torch.int64
        assert relative(summed.sum_by_anchor(), made.sum_by_anchor()) < tolerance, name
        # What reaches the embeddings, when each anchor has a weight of its own.
        weights = torch.linspace(0.5, 2, len(labels), dtype=dtype)
        inputs = [x] if others is None else [x, r]
        for one, two in zip(
            torch.autograd.grad((summed.sum_by_anchor() * weights).sum(), inputs),
            torch.autograd.grad((made.sum_by_anchor() * weights).sum(), inputs),
            strict=True,
        ):
            # A coefficient is one sum here and a sum of thousands of ones there; float32 rounds the latter.
            assert relative(one, two) < 5 * tolerance, name


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize("miner", [None, All, SemiHard, Hard])
def test_the_loss_of_a_rule_is_that_of_its_triplets(miner: Any, reducer: Any, brute: SimpleNamespace) -> None:
    labels = BATCHES["uneven classes"]
    x, y = brute.clustered(labels), torch.tensor(labels)
    d = brute.matrix("euclidean", x)
    lower, upper = RULES[{None: "all", All: "all", SemiHard: "semihard", Hard: "hard"}[miner]]
    costs = [max(d[a][p] - d[a][n] + MARGIN, 0.0) for a, p, n in brute.triplets(d, labels, None, lower, upper)]
    count = {Mean: len(costs), Sum: 1, AvgNonZero: sum(c > 0 for c in costs)}[reducer]
    loss = Triplet(MARGIN, reducer=reducer())
    value = loss(x, y, None if miner is None else miner().select(x, y, loss=loss))
    assert value.item() == pytest.approx(math.fsum(costs) / count, rel=1e-9)


@settings(deadline=None, max_examples=100)
@given(
    labels=st.lists(st.integers(0, 3), max_size=9),
    others=st.none() | st.lists(st.integers(0, 3), max_size=7),
    seed=st.integers(0, 1000),
    margin=st.sampled_from([0.0, 1.0, 2.0]),
    bounds=st.sampled_from([(-math.inf, math.inf), (0.0, 1.0), (-math.inf, 0.0), (-1.0, 2.0), (0.0, math.inf)]),
    distance=st.sampled_from(["squared_raw", "dot", "euclidean_raw"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_ties_fall_as_in_the_definition(
    labels: list[int],
    others: list[int] | None,
    seed: int,
    margin: float,
    bounds: tuple[float, float],
    distance: str,
    dtype: torch.dtype,
    brute: SimpleNamespace,
) -> None:
    if distance == "euclidean_raw" and dtype == torch.float32:
        dtype = torch.float64  # the definition's roots are float64 ones
    x, y = brute.grid(len(labels), dim=2, seed=seed, dtype=dtype), torch.tensor(labels, dtype=torch.int64)
    r = x if others is None else brute.grid(len(others), dim=2, seed=seed + 1, dtype=dtype)
    z = y if others is None else torch.tensor(others, dtype=torch.int64)
    d = brute.matrix(distance, x, None if others is None else r)
    gaps = [d[a][n] - d[a][p] for a, p, n in brute.triplets(d, labels, others, *bounds)]
    costs = [-gap + margin for gap in gaps if -gap + margin > 0]
    metric = brute.distances[distance][0]()
    batch = Batch(x, y, r, z, None, others is None, (x, r))
    # The matrix as a whole, without a table of positives and with one; and by rows.
    for small, few in ((row_pass.SMALL, triplet_terms.FEW), (row_pass.SMALL, 0), (0, 0)):
        with (
            mock.patch.object(row_pass, "SMALL", small),
            mock.patch.object(sides, "SMALL", small),
            mock.patch.object(triplet_terms, "FEW", few),
        ):
            terms = TripletTerms(batch, metric, TripletCost(margin), TripletRule(batch, metric, *bounds))
            assert terms.count() == len(gaps)
            assert terms.count_positive() == len(costs)
            assert terms.sum().item() == pytest.approx(math.fsum(costs), rel=1e-12)


@pytest.mark.parametrize("miner", [None, SemiHard, Hard])
@pytest.mark.parametrize("elements", [1, 40, 100])
def test_the_size_of_the_slices_does_not_matter(
    elements: int, miner: Any, brute: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = BATCHES["uneven classes"]
    y = torch.tensor(labels)
    loss = Triplet(MARGIN)

    def gradient() -> tuple[Tensor, Tensor, Tensor]:
        x = brute.clustered(labels).requires_grad_()
        value = loss(x, y, None if miner is None else miner().select(x, y, loss=loss))
        unreduced = torch.cat([v for v, _ in loss.terms(Batch.of(x, y)).blocks()])
        return value, *torch.autograd.grad(value, x, retain_graph=True), unreduced

    whole = gradient()
    monkeypatch.setattr(triplet_terms, "FEW", 0)
    for one, two in zip(gradient(), whole, strict=True):  # from a table of positives
        torch.testing.assert_close(one, two, rtol=1e-13, atol=1e-15)
    monkeypatch.setattr(row_pass, "SMALL", 0)
    monkeypatch.setattr(sides, "SMALL", 0)
    monkeypatch.setattr(few_rows, "CPU_ELEMENTS", elements)
    monkeypatch.setattr(hinges, "ELEMENTS", elements)
    monkeypatch.setattr(triplet_terms, "SMALL", 0)
    monkeypatch.setattr(pair_pass, "CPU_ELEMENTS", elements)
    for one, two in zip(gradient(), whole, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "squared_raw", "dot"])
@pytest.mark.parametrize("reference", REFERENCES)
def test_the_hardest_triplets_of_a_small_batch_are_found_and_summed_in_one_pass(
    reference: str, distance: str, smooth: bool, brute: SimpleNamespace
) -> None:
    loss = Triplet(MARGIN, smooth=smooth, distance=brute.distances[distance][0]())
    ties = (lambda labels, seed=0: brute.grid(len(labels), dim=2, seed=seed),) if distance != "euclidean" else ()
    for name, labels in BATCHES.items():
        for embed in (brute.clustered, *ties):
            x, y = embed(labels).requires_grad_(), torch.tensor(labels, dtype=torch.int64)
            others = REFERENCES[reference]
            r = x if others is None else embed(others, seed=1).requires_grad_()
            z = y if others is None else torch.tensor(others, dtype=torch.int64)
            batch = Batch(x, y, r, z, None, others is None, (x, r))
            rule = HardestTriplets(batch, loss.distance)
            summed = loss.terms(dataclasses.replace(batch, selection=rule))
            made = loss.terms(dataclasses.replace(batch, selection=IndexSelection(rule.indices())))
            assert isinstance(summed, HardestTerms)
            assert isinstance(made, MaterialTerms)
            assert summed.count() == made.count(), name
            assert summed.count_positive() == made.count_positive(), name
            assert torch.equal(summed.count_by_anchor(), made.count_by_anchor()), name
            assert torch.equal(summed.values, made.values), name
            inputs = [x] if others is None else [x, r]
            for of in (lambda terms: terms.sum(), lambda terms: terms.sum_by_anchor().square().sum()):
                one, two = (
                    (of(terms), *torch.autograd.grad(of(terms), inputs, retain_graph=True)) for terms in (summed, made)
                )
                for found, expected in zip(one, two, strict=True):
                    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, msg=name)


def test_the_gradient_is_exact(brute: SimpleNamespace) -> None:
    labels = BATCHES["uneven classes"]
    y = torch.tensor(labels)
    x = brute.clustered(labels, dim=3).requires_grad_()
    # The rule is that of all, whose selection does not move with the embeddings; the hinge does.
    assert torch.autograd.gradcheck(lambda x: Triplet(MARGIN).terms(Batch.of(x, y)).sum_by_anchor(), (x,))


def test_the_second_derivative_is_that_of_the_distances() -> None:
    # No gap is near the margin, so that nothing moves across a hinge.
    x = torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 0.5], [3.0, 2.0], [1.5, 1.0]], dtype=torch.float64)
    loss = Triplet(1.1, distance=SquaredEuclidean(normalize=False), reducer=Sum())
    y = torch.tensor([0, 0, 1, 1, 0])
    assert torch.autograd.gradgradcheck(lambda x: loss(x, y).square(), (x.requires_grad_(),))


def test_statistics_taken_first_leave_the_gradient_alone() -> None:
    x = torch.randn(6, 3, requires_grad=True)
    terms = Triplet(5.0).terms(Batch.of(x, torch.tensor([0, 0, 1, 1, 2, 2])))
    assert isinstance(terms, TripletTerms)
    with torch.no_grad():
        terms.count()
        terms.values  # noqa: B018  # asked for, so kept
    assert terms.sum().requires_grad
    assert terms.values.requires_grad


def test_backward_may_be_asked_for_again() -> None:
    x = torch.randn(6, 3, requires_grad=True)
    value = Triplet()(x, torch.tensor([0, 0, 1, 1, 2, 2]))
    first = torch.autograd.grad(value, x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(value, x)[0])


@pytest.mark.parametrize("k", [4, 32])
@pytest.mark.parametrize("miner", [None, All, SemiHard, Hard])
@pytest.mark.parametrize("reducer", REDUCERS)
def test_nothing_larger_than_the_matrix_of_distances_is_made(
    reducer: Any, miner: Any, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hinges, "ELEMENTS", 64 * 64)
    x = torch.randn(64, 8, requires_grad=True)
    y = torch.arange(64) % (64 // k)
    loss = Triplet(reducer=reducer())
    loss.collect_stats = True

    def call() -> None:
        loss(x, y, None if miner is None else miner().select(x, y, loss=loss)).backward()

    assert most_elements(call) <= 64 * 64
    assert loss.statistics["loss/terms"] > 0


def test_made_triplets_are_larger() -> None:
    """The measure above sees triplets where they are made."""
    x, y = torch.randn(64, 8), torch.arange(64) % 16
    assert most_elements(lambda: Triplet(smooth=True)(x, y)) >= 64 * 3 * 60


def test_it_fuses_only_where_the_rule_decides_on_the_distances_of_the_loss() -> None:
    x, y = torch.randn(8, 3), torch.arange(4).repeat(2)
    loss = Triplet()

    def fused(selection: Any, loss: Triplet = loss, x: Tensor = x) -> bool:
        return isinstance(loss.terms(Batch.of(x, y, selection)), TripletTerms)

    assert fused(None)
    assert fused(SemiHard().select(x, y, loss=loss))
    assert fused(SemiHard(0.3, distance=Euclidean()).select(x, y, loss=loss))
    assert not fused(SemiHard(0.3, distance=SquaredEuclidean()).select(x, y, loss=loss))
    assert not fused(SemiHard(0.3, distance=Euclidean(normalize=False)).select(x, y, loss=loss))
    assert fused(All(distance=Cosine()).select(x, y, loss=loss)), "all triplets are all on any distance"
    assert not fused(Hard().select(torch.randn(8, 3), y, loss=loss)), "mined on other embeddings"
    assert not fused(Hard().select(x, y, x.clone(), y, loss=loss)), "mined against a reference set"
    assert not fused(None, Triplet(swap=True))
    assert not fused(None, Triplet(smooth=True))


def test_half_precision_fuses_too() -> None:
    x, y = torch.randn(8, 3).bfloat16(), torch.arange(4).repeat(2)
    loss = Triplet()
    assert isinstance(loss.terms(Batch.of(x, y, SemiHard().select(x, y, loss=loss))), TripletTerms)


def test_a_miner_on_another_distance_decides_there(brute: SimpleNamespace) -> None:
    labels = BATCHES["uneven classes"]
    x, y = brute.clustered(labels), torch.tensor(labels)
    squared, d = brute.matrix("squared", x), brute.matrix("euclidean", x)
    chosen = brute.triplets(squared, labels, None, 0.0, 0.3)
    expected = math.fsum(max(d[a][p] - d[a][n] + MARGIN, 0.0) for a, p, n in chosen)
    loss = Triplet(MARGIN, reducer=Sum())
    value = loss(x, y, SemiHard(0.3, distance=SquaredEuclidean()).select(x, y, loss=loss))
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_labels_may_be_left_out_where_a_rule_has_them(brute: SimpleNamespace) -> None:
    labels = BATCHES["even classes"]
    x, y = brute.clustered(labels), torch.tensor(labels)
    loss = Triplet()
    selection = Hard().select(x, y, loss=loss)
    assert loss(x, None, selection) == loss(x, y, selection)


def test_many_triplets_are_announced_when_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn_selection, "MANY", 10)
    terms = Triplet().terms(Batch.of(torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 1])))
    assert isinstance(terms, TripletTerms)
    with pytest.warns(NearfarWarning, match="36 triplets"):
        assert len(terms.values) == 36


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("form", [{}, {"swap": True}, {"smooth": True}], ids=str)
@pytest.mark.parametrize("miner", [Hard, SemiHard, All])
def test_what_is_not_a_number_shows_in_the_loss(
    miner: type, form: dict[str, bool], dtype: torch.dtype, wrong: float
) -> None:
    x = torch.randn(8, 16).to(dtype)
    x[3, 2] = wrong
    y = torch.arange(8) // 2
    loss = Triplet(**form)  # type: ignore[arg-type]
    assert loss(x, y, miner().select(x, y, loss=loss)).isnan()


def test_active_triplets_are_counted_beyond_what_float32_counts() -> None:
    # One anchor at 0, 5001 positives at 1, 5001 negatives at 0.5: every triplet of that anchor costs something.
    x = torch.cat([torch.zeros(1, 1), torch.ones(5001, 1), torch.full((5001, 1), 0.5)])
    labels = torch.cat([torch.zeros(5002), torch.ones(5001)]).long()
    loss = Triplet(0.2, distance=Euclidean(normalize=False))
    batch = Batch.of(x[:1], labels[:1], None, x[1:], labels[1:])
    assert loss.terms(batch).count_positive().item() == 5001 * 5001
