"""Miners of pairs over the whole batch: the hardest share, and pairs spread evenly over their distances."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from nearfar.errors import ArgumentError
from nearfar.nn import distances as nearfar_distances
from nearfar_pair.miners.hdc import HDC, how_many
from nearfar_pair.miners.uniform_histogram import UniformHistogram

LABELS = [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("fraction", [0.07, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("name", ["euclidean_raw", "squared_raw", "dot"])
def test_the_hardest_share_is_found_by_sorting_ties_and_all(brute: Any, name: str, fraction: float) -> None:
    x = brute.grid(len(LABELS), dim=2)  # full of ties
    d = brute.matrix(name, x)
    positive, negative = brute.pairs(LABELS)
    far = sorted(positive, key=lambda pair: -d[pair[0]][pair[1]])[: math.ceil(fraction * len(positive))]
    near = sorted(negative, key=lambda pair: d[pair[0]][pair[1]])[: math.ceil(fraction * len(negative))]
    a1, p, a2, n = HDC(fraction, distance=brute.distances[name][0]())(x, torch.tensor(LABELS))
    assert list(zip(a1.tolist(), p.tolist(), strict=True)) == sorted(far)
    assert list(zip(a2.tolist(), n.tolist(), strict=True)) == sorted(near)


def test_a_share_of_a_hundred_is_not_rounded_up_by_rounding() -> None:
    x, y = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10).repeat(2)
    (a1, _, a2, _) = HDC(0.55)(x, y)
    assert (len(a1), len(a2)) == (11, 198)  # of 20 and of 360; 0.55 × 20 is above 11 in floats


@pytest.mark.parametrize(
    ("fraction", "count", "share"),
    [
        (0.01, 16_000_001, 160_001),  # 160,000.01
        (0.7, 10, 7),
        (0.07, 100, 7),  # 7.000000000000001 in floats
        (1e-9, 16_000_000, 1),
        (1.0, 16_769_024, 16_769_024),
        (0.501, 1_000, 501),
        (0.5, 0, 0),
    ],
)
def test_a_share_of_however_many_pairs_is_rounded_up_once(fraction: float, count: int, share: int) -> None:
    assert how_many(fraction, count) == share


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_pairs_whose_distance_is_no_number_are_among_the_hardest(fraction: float, brute: Any) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    x[5] = torch.nan
    for own in (nearfar_distances.Dot(), nearfar_distances.Euclidean()):
        a1, p, a2, n = HDC(fraction, distance=own)(x, y)
        assert ((a1 == 5) | (p == 5)).any()
        assert ((a2 == 5) | (n == 5)).any()


@pytest.mark.parametrize("fraction", [0.0, 1.5, float("nan"), -0.5])
def test_a_share_is_above_zero_up_to_one(fraction: float) -> None:
    with pytest.raises(ArgumentError, match="fraction"):
        HDC(fraction)


def test_every_bin_gives_as_many_pairs_each_as_likely_as_the_others(brute: Any) -> None:
    x, calls, bins = brute.clustered(LABELS), 1500, 4
    d, sides = brute.matrix("euclidean", x), brute.pairs(LABELS)
    miner = UniformHistogram(num_bins=bins, pos_per_bin=2, neg_per_bin=3)
    found = [miner(x, torch.tensor(LABELS)) for _ in range(calls)]
    for side, (first, each) in enumerate(((0, 2), (2, 3))):
        drawn = Counter(
            pair for call in found for pair in zip(call[first].tolist(), call[first + 1].tolist(), strict=True)
        )
        values = {pair: d[pair[0]][pair[1]] for pair in sides[side]}
        low, high = min(values.values()), max(values.values())
        bin_of = {pair: min(int((v - low) / (high - low) * bins), bins - 1) for pair, v in values.items()}
        size = Counter(bin_of.values())
        assert set(drawn) <= set(values)
        for pair, place in bin_of.items():
            probability, draws = 1 / size[place], calls * each
            spread = math.sqrt(probability * (1 - probability) / draws)
            assert abs(drawn[pair] / draws - probability) <= 5 * spread + 1e-12


def test_pairs_of_one_distance_are_one_bin() -> None:
    x, y = torch.eye(4, dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    a1, _, a2, _ = UniformHistogram(num_bins=7, pos_per_bin=3, neg_per_bin=5)(x, y)
    assert (len(a1), len(a2)) == (3, 5)


def test_a_resumed_miner_draws_on_and_evaluation_draws_the_same(brute: Any) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    one, other = UniformHistogram(seed=3), UniformHistogram(seed=3)
    one(x, y)
    other.load_state_dict(one.state_dict())
    drawn, again = one(x, y), other(x, y)
    assert all(torch.equal(first, second) for first, second in zip(drawn, again, strict=True))
    one.eval()
    drawn, again = one(x, y), one(x, y)
    assert all(torch.equal(first, second) for first, second in zip(drawn, again, strict=True))
    assert not torch.equal(UniformHistogram(seed=4)(x, y)[0], UniformHistogram(seed=5)(x, y)[0])


@pytest.mark.parametrize("wrong", [{"num_bins": 0}, {"pos_per_bin": -1}, {"neg_per_bin": 1.5}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        UniformHistogram(**wrong)


@pytest.mark.parametrize("huge", [1e38, -1e38, torch.inf])
def test_bins_of_distances_that_overflow_are_drawn_from(huge: float, brute: Any) -> None:
    x, y = brute.clustered(LABELS).float(), torch.tensor(LABELS)
    x[5], x[6] = huge, -huge
    for own in (nearfar_distances.Dot(), nearfar_distances.Euclidean(normalize=False)):
        a1, p, a2, n = UniformHistogram(distance=own)(x, y)
        assert (y[a1] == y[p]).all()
        assert (y[a2] != y[n]).all()
        assert len(a1) >= 10
        assert len(a2) >= 10
