"""Miners choose, and given pairs get their distances, without a matrix of all distances; nothing else changes by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import nearfar
from nearfar.nn import distances
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection
from nearfar_pair import few_rows, row_pass, sides
from nearfar_pair import pair_distances as pair_distances_module
from nearfar_pair.arithmetic import exponential_, first_least, log_sum_exp
from nearfar_pair.losses.margin_beta import MarginBeta
from nearfar_pair.losses.triplet import Triplet
from nearfar_pair.miners.batch_easy_hard import BatchEasyHard
from nearfar_pair.miners.batch_hard import BatchHard
from nearfar_pair.miners.distance_weighted import DistanceWeighted
from nearfar_pair.miners.hard_negative_all_positive import HardNegativeAllPositive
from nearfar_pair.miners.multi_similarity import MultiSimilarityMiner
from nearfar_pair.miners.pair_margin import PairMargin
from nearfar_pair.miners.semihard_one import SemiHardOne
from nearfar_pair.pair_distances import pair_distances

UNEVEN = [5, 5, 1, 5, 2, 5, 7, 2, 5, 1, 5, 9, 5]
REFERENCE = [5, 1, 0, 0, 2, 9, 2, 5, 5, 1, 8]
MINERS: dict[str, Callable[..., Miner]] = {
    "batch_hard": BatchHard,
    "semihard_one": SemiHardOne,
    "hard_negative_all_positive": HardNegativeAllPositive,
    "multi_similarity": lambda **kw: MultiSimilarityMiner(1.0, **kw),
    "pair_margin": lambda **kw: PairMargin(1.0, 3.0, **kw),
    **{
        f"easy_hard_{pos}_{neg}": lambda pos=pos, neg=neg, **kw: BatchEasyHard(pos, neg, (-9.0, 9.0), (-8.0, 8.0), **kw)
        for pos, neg in [("easy", "semihard"), ("hard", "easy"), ("semihard", "hard"), ("all", "hard"), ("easy", "all")]
    },
}


@contextmanager
def by_rows(elements: int) -> Iterator[None]:
    with (
        mock.patch.object(row_pass, "SMALL", 0),
        mock.patch.object(sides, "SMALL", 0),
        mock.patch.object(few_rows, "CPU_ELEMENTS", elements),
        mock.patch.object(pair_distances_module, "SMALL", 0),
        mock.patch.object(pair_distances_module, "CPU_ELEMENTS", elements),
    ):
        yield


def lists(found: tuple[Tensor, ...]) -> list[list[int]]:
    return [index.tolist() for index in found]


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("distance", ["euclidean_raw", "squared_raw", "dot"])
@pytest.mark.parametrize("name", MINERS)
def test_a_miner_selects_by_rows_what_it_selects_from_the_matrix(
    name: str, distance: str, with_reference: bool, brute: SimpleNamespace
) -> None:
    # What it selects from the matrix is compared with its definition elsewhere; whole numbers make ties.
    miner = MINERS[name](distance=brute.distances[distance][0]())
    x = brute.grid(len(UNEVEN), seed=4).requires_grad_()
    rest = (brute.grid(len(REFERENCE), seed=5), torch.tensor(REFERENCE)) if with_reference else ()
    whole = lists(miner(x, torch.tensor(UNEVEN), *rest))
    assert any(whole), "the batch must have something to select"
    for elements in (1, 40):
        with by_rows(elements):
            assert lists(miner(x, torch.tensor(UNEVEN), *rest)) == whole


def test_many_positives_are_looked_up_in_order(brute: SimpleNamespace) -> None:
    labels = [0] * 20 + [1] * 22
    x = brute.grid(len(labels), seed=6)
    miner = SemiHardOne(distance=distances.SquaredEuclidean(normalize=False))
    d = brute.matrix("squared_raw", x)
    expected = []
    for a, p in brute.pairs(labels)[0]:
        beyond = [j for j, y in enumerate(labels) if y != labels[a] and d[a][j] > d[a][p]]
        if beyond:
            expected.append((a, p, min(beyond, key=lambda j, a=a: (d[a][j], j))))  # type: ignore[misc]
    with by_rows(100):
        found = miner(x, torch.tensor(labels))
    assert list(zip(*lists(found), strict=True)) == expected


def test_negatives_are_drawn_by_rows_as_from_the_matrix(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(UNEVEN), torch.tensor(UNEVEN)
    whole = lists(DistanceWeighted(seed=3)(x, y))
    assert whole[0]
    with by_rows(40):
        assert lists(DistanceWeighted(seed=3)(x, y)) == whole


@settings(deadline=None, max_examples=80)
@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=150), at=st.one_of(st.none(), st.integers(0, 149)))
def test_the_first_least_is_the_first_of_the_least(values: list[int], at: int | None) -> None:
    x = torch.tensor([values, values[::-1]], dtype=torch.float32)
    if at is not None and at < len(values):
        x[0, at] = math.nan  # what is no number is least
        assert first_least(x)[0].item() == at
    assert first_least(x)[1].item() == values[::-1].index(min(values))


@pytest.mark.parametrize("many", [False, True], ids=["fetched", "by rows"])
@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", ["euclidean", "squared", "cosine", "dot", "euclidean_raw"])
def test_distances_of_pairs_are_entries_of_the_matrix(
    name: str, with_reference: bool, many: bool, brute: SimpleNamespace
) -> None:
    distance = brute.distances[name][0]()
    x = brute.clustered(UNEVEN).requires_grad_()
    r = brute.clustered(REFERENCE, seed=1).requires_grad_() if with_reference else None
    generator = torch.Generator().manual_seed(0)
    i = torch.randint(len(UNEVEN), (50,), generator=generator)
    j = torch.randint(len(REFERENCE), (50,), generator=generator)
    by = torch.randn(50, generator=generator, dtype=torch.float64)
    leaves = [x] if r is None else [x, r]
    matrix = distance(x) if r is None else distance(x, r)
    expected = (-matrix if distance.is_inverted else matrix)[i, j]
    wanted = torch.autograd.grad(expected, leaves, by)
    with by_rows(30), mock.patch.object(pair_distances_module, "ENTRIES_OF_A_PAIR", 1e6 if many else 0):
        for order in (torch.arange(50), i.argsort()):
            found = pair_distances(distance, x, r, i[order], j[order])
            torch.testing.assert_close(found, expected[order], rtol=1e-12, atol=1e-12)
            for one, two in zip(torch.autograd.grad(found, leaves, by[order]), wanted, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("many", [0, 1e6])
def test_distances_of_pairs_have_second_derivatives(many: float, brute: SimpleNamespace) -> None:
    x = brute.clustered(UNEVEN[:5], dim=3).requires_grad_()
    i, j = torch.tensor([0, 1, 3, 3]), torch.tensor([1, 2, 0, 4])
    with by_rows(5), mock.patch.object(pair_distances_module, "ENTRIES_OF_A_PAIR", many):
        of = lambda x: pair_distances(distances.Euclidean(), x, None, i, j)  # noqa: E731
        assert torch.autograd.gradcheck(of, x)
        assert torch.autograd.gradgradcheck(of, x)


def test_no_pair_has_a_gradient_still() -> None:
    x = torch.randn(40, 3, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    with by_rows(10):
        pair_distances(distances.Euclidean(), x, None, none, none).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("make", [lambda: Triplet(swap=True), lambda: Triplet(smooth=True), MarginBeta])
@pytest.mark.parametrize("with_reference", [False, True])
def test_losses_on_given_triplets_give_the_same_by_rows(
    make: Callable[[], Any], with_reference: bool, brute: SimpleNamespace
) -> None:
    loss, x, y = make().double(), brute.clustered(UNEVEN).requires_grad_(), torch.tensor(UNEVEN)
    rest = (brute.clustered(REFERENCE, seed=1), torch.tensor(REFERENCE)) if with_reference else ()
    selection = IndexSelection(HardNegativeAllPositive()(x, y, *rest))
    whole = loss(x, y, selection, *rest)
    with by_rows(30):
        found = loss(x, y, selection, *rest)
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)
        for one, two in zip(*(torch.autograd.grad(v, x) for v in (found, whole)), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-13)


def test_pairs_join_on_their_anchor_to_triplets() -> None:
    a1, p, a2, n = (torch.tensor(index) for index in ([2, 0, 2, 5], [1, 1, 3, 0], [2, 0, 2, 1], [7, 8, 9, 7]))
    found = IndexSelection((a1, p, a2, n)).triplets()
    expected = [(a, x, y) for a, x in zip([2, 0, 2, 5], [1, 1, 3, 0], strict=True) for b, y in
                zip([2, 0, 2, 1], [7, 8, 9, 7], strict=True) if a == b]  # fmt: skip
    assert list(zip(*lists(found), strict=True)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponentials_are_those_of_torch(dtype: torch.dtype) -> None:
    x = -torch.logspace(-3, 2, 200, dtype=torch.float64)
    found = exponential_(x.to(dtype).clone(), 1.5).double()
    # The argument is rounded once more, so a result is off by as many roundings as its logarithm is large.
    allowed = 4 * torch.finfo(dtype).eps * (1 + 1.5 * x.abs()) * (1.5 * x).exp() + torch.finfo(dtype).tiny
    assert ((found - (1.5 * x).exp()).abs() <= allowed).all()
    assert exponential_(torch.tensor([-1e18], dtype=dtype), 50.0).item() == 0


def test_what_is_kept_in_scratch_memory_has_the_same_gradient() -> None:
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    by = torch.randn(4, dtype=torch.float64)
    found = log_sum_exp(x, -7.0, torch.empty_like(x))
    torch.testing.assert_close(found, (-7 * x).logsumexp(1))
    torch.testing.assert_close(torch.autograd.grad(found, x, by), torch.autograd.grad((-7 * x).logsumexp(1), x, by))


@pytest.mark.parametrize(
    "composition",
    [
        "triplet(miner=batch_hard)",
        "triplet(miner=semihard_one)",
        "triplet(swap=True, miner=hard_negative_all_positive)",
        "triplet(miner=batch_easy_hard)",
        "triplet(smooth=True, miner=batch_easy_hard(pos_strategy='all', neg_strategy='hard'))",
        "margin_beta(miner=distance_weighted)",
        "contrastive(miner=batch_easy_hard(pos_strategy='easy', neg_strategy='all'))",
        "arcface_triplet(miner=semihard_one)",
    ],
)
def test_no_matrix_of_all_distances_is_made(composition: str) -> None:
    criterion = nearfar.compose(composition)
    y = torch.arange(400) % 100
    x = torch.randn(400, 8, requires_grad=True)

    def refuse(*_: Any) -> Tensor:
        raise AssertionError("a whole matrix was asked for")

    with (
        mock.patch.multiple(distances.SquaredEuclidean, matrix=refuse),
        mock.patch.object(distances.Cosine, "matrix", refuse),
    ):
        criterion(x, y).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("n", "most", "sizes"), [(0, 4, []), (3, 4, [3]), (5, 4, [3, 2]), (9, 4, [4, 3, 2]), (12, 4, [4, 4, 4])]
)
def test_no_few_rows_are_left_over(n: int, most: int, sizes: list[int]) -> None:
    found = list(few_rows.parts(n, most))
    assert [part.stop - part.start for part in found] == sizes
    assert [i for part in found for i in range(n)[part]] == list(range(n))
