"""The miners select what their definitions say, ties included."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.distances import Cosine, Dot, SquaredEuclidean
from nearfar.nn.selection import TripletRule
from nearfar_pair.hardest_triplets import HardestTriplets
from nearfar_pair.losses.contrastive import Contrastive
from nearfar_pair.losses.triplet import Triplet
from nearfar_pair.miners.all import All
from nearfar_pair.miners.batch_hard import BatchHard
from nearfar_pair.miners.hard import Hard
from nearfar_pair.miners.semihard import SemiHard

LABELS = [3, 0, 3, 1, 0, 3, 2, 1, 0, 2, 3, 1, 5]
REFERENCE = [0, 1, 4, 0, 3, 3, 1, 2, 0]
MINERS = {"all": All, "semihard": lambda **kw: SemiHard(1.0, **kw), "hard": Hard}
INTERVALS = {"all": (-math.inf, math.inf), "semihard": (0.0, 1.0), "hard": (-math.inf, 0.0)}


def as_tuples(indices: tuple[torch.Tensor, ...]) -> list[tuple[int, ...]]:
    return list(zip(*(index.tolist() for index in indices), strict=True))


def batch_hard(d: list[list[float]], labels: list[int], reference: list[int] | None) -> list[tuple[int, int, int]]:
    others = labels if reference is None else reference
    chosen = []
    for a, label in enumerate(labels):
        positive = [j for j, y in enumerate(others) if y == label and (reference is not None or j != a)]
        negative = [j for j, y in enumerate(others) if y != label]
        if positive and negative:
            p = max(positive, key=lambda j: (d[a][j], -j))
            n = min(negative, key=lambda j: (d[a][j], j))
            chosen.append((a, p, n))
    return chosen


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("distance", ["euclidean_raw", "squared_raw", "dot"])
@pytest.mark.parametrize("name", ["all", "semihard", "hard", "batch_hard"])
def test_a_miner_selects_by_its_definition_also_at_ties(
    name: str, distance: str, with_reference: bool, brute: SimpleNamespace
) -> None:
    x, r = brute.grid(len(LABELS)), brute.grid(len(REFERENCE), seed=1)
    reference, labels = (r, REFERENCE) if with_reference else (None, None)
    d = brute.matrix(distance, x, reference)
    make = BatchHard if name == "batch_hard" else MINERS[name]
    args = (reference, torch.tensor(labels)) if with_reference else ()
    found = as_tuples(make(distance=brute.distances[distance][0]())(x, torch.tensor(LABELS), *args))
    if name == "batch_hard":
        expected = batch_hard(d, LABELS, labels)
    else:
        expected = list(brute.triplets(d, LABELS, labels, *INTERVALS[name]))
    assert expected, "the batch must have something to select"
    assert found == expected


def test_the_grid_has_ties(brute: SimpleNamespace) -> None:
    d = brute.matrix("euclidean_raw", brute.grid(len(LABELS)))
    gaps = [d[a][n] - d[a][p] for a, p, n in brute.triplets(d, LABELS)]
    assert 0.0 in gaps
    d = brute.matrix("squared_raw", brute.grid(len(LABELS)))
    gaps = [d[a][n] - d[a][p] for a, p, n in brute.triplets(d, LABELS)]
    assert {0.0, 1.0} <= set(gaps)


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(st.integers(0, 3), max_size=10), seed=st.integers(0, 1000))
def test_any_labels(labels: list[int], seed: int, brute: SimpleNamespace) -> None:
    x = brute.grid(len(labels), dim=2, seed=seed)
    y = torch.tensor(labels, dtype=torch.int64)
    d = brute.matrix("squared_raw", x)
    distance = SquaredEuclidean(normalize=False)
    for name, make in MINERS.items():
        expected = list(brute.triplets(d, labels, None, *INTERVALS[name]))
        assert as_tuples(make(distance=distance)(x, y)) == expected
    assert as_tuples(BatchHard(distance=distance)(x, y)) == batch_hard(d, labels, None)


def test_selections_are_compact() -> None:
    x, y = torch.randn(8, 3), torch.arange(4).repeat(2)
    for miner in (All(), SemiHard(0.2), Hard()):
        assert isinstance(miner.select(x, y), TripletRule)
    selection = BatchHard().select(x, y)
    assert isinstance(selection, HardestTriplets)
    assert all(len(index) == 8 for index in selection.indices())


def test_unset_a_miner_takes_margin_and_distance_of_its_loss() -> None:
    x, y = torch.randn(8, 3), torch.arange(4).repeat(2)
    loss = Triplet(margin=0.7, distance=SquaredEuclidean())
    rule = SemiHard().select(x, y, loss=loss)
    assert isinstance(rule, TripletRule)
    assert (rule.lower, rule.upper) == (0.0, 0.7)
    assert rule.distance is loss.distance


def test_set_a_miner_keeps_its_own() -> None:
    x, y = torch.randn(8, 3), torch.arange(4).repeat(2)
    rule = SemiHard(0.1, distance=Dot()).select(x, y, loss=Triplet(margin=0.7))
    assert isinstance(rule, TripletRule)
    assert rule.upper == 0.1
    assert isinstance(rule.distance, Dot)


def test_semihard_without_any_margin_says_so() -> None:
    x, y = torch.randn(8, 3), torch.arange(4).repeat(2)
    with pytest.raises(ArgumentError, match="margin"):
        SemiHard()(x, y)
    with pytest.raises(ArgumentError, match="margin"):
        SemiHard().select(x, y, loss=Contrastive())


@pytest.mark.parametrize("margin", [-0.1, math.inf, math.nan, "0.2", True])
def test_semihard_refuses_a_margin_that_is_none(margin: object) -> None:
    with pytest.raises(ArgumentError, match="margin"):
        SemiHard(margin)  # type: ignore[arg-type]


def test_nearest_is_most_similar_for_a_similarity() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, -0.5]])
    y = torch.tensor([0, 0, 1, 1])
    a, p, n = BatchHard(distance=Cosine())(x, y)
    assert (a[0], p[0], n[0]) == (0, 1, 2)


@pytest.mark.parametrize("make", [All, lambda: SemiHard(0.2), Hard, BatchHard])
@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1, 2]])
def test_where_there_is_no_triplet_none_is_selected(make: type[All], labels: list[int]) -> None:
    found = make()(torch.randn(len(labels), 3), torch.tensor(labels, dtype=torch.int64))
    assert len(found) == 3
    assert all(index.shape == (0,) and index.dtype == torch.int64 for index in found)


@pytest.mark.parametrize("make", [All, lambda: SemiHard(0.2), Hard, BatchHard])
def test_an_empty_reference_has_no_triplet(make: type[All]) -> None:
    found = make()(torch.randn(3, 2), torch.tensor([0, 0, 1]), torch.randn(0, 2), torch.tensor([], dtype=torch.int64))
    assert [len(index) for index in found] == [0, 0, 0]


@pytest.mark.parametrize("make", [All, lambda: SemiHard(0.2), Hard, BatchHard])
def test_half_precision_selects_as_float32_of_the_same_numbers(make: type[All]) -> None:
    x = torch.randn(12, 4).bfloat16()
    y = torch.arange(4).repeat(3)
    for half, full in zip(make()(x, y), make()(x.float(), y), strict=True):
        assert torch.equal(half, full)


def test_wrong_labels_are_named() -> None:
    with pytest.raises(InputError, match="labels"):
        BatchHard()(torch.randn(4, 2), torch.tensor([0.0, 1.0, 0.0, 1.0]))
