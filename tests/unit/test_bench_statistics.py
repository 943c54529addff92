"""Intervals and tests of repeats, against Student's density integrated and Holm's procedure step by step."""

from __future__ import annotations

import math
import random

import pytest

pytest.importorskip("scipy", reason="scipy, of nearfar[bench], is not installed")
pytest.importorskip("optuna", reason="optuna, of nearfar[bench], is not installed")

from nearfar.bench.statistics import estimate, holm, paired


def tail(t: float, freedom: int, steps: int = 20_000) -> float:
    """P(T > t): Student's density over the angle whose tangent is x / √ν, by Simpson's rule."""
    factor = math.gamma((freedom + 1) / 2) / (math.gamma(freedom / 2) * math.sqrt(math.pi))
    low, high = math.atan(t / math.sqrt(freedom)), math.pi / 2
    width = (high - low) / steps

    def density(angle: float) -> float:
        return factor * max(math.cos(angle), 0.0) ** (freedom - 1)

    weights = [1, *(4 if k % 2 else 2 for k in range(1, steps)), 1]
    return width / 3 * math.fsum(w * density(low + k * width) for k, w in enumerate(weights))


def quantile(share: float, freedom: int) -> float:
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, freedom, 2000) > 1 - share else (low, middle)
    return low


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_an_interval_is_students(count: int) -> None:
    draws = random.Random(count)
    values = [draws.gauss(0.3, 0.02) for _ in range(count)]
    mean = sum(values) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    found = estimate(values)
    assert found.count == count
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.half == pytest.approx(quantile(0.975, count - 1) * deviation / math.sqrt(count), rel=1e-6)


def test_the_interval_of_known_numbers() -> None:
    # t(0.975, 2) = 4.30265 of any table; s = 1, n = 3.
    assert estimate([1.0, 2.0, 3.0]).half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)


def test_a_single_repeat_has_no_interval() -> None:
    assert estimate([0.25]) == estimate([0.25])
    assert (estimate([0.25]).mean, estimate([0.25]).half) == (0.25, None)


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    draws = random.Random(0)
    held = 0
    for _ in range(4000):
        found = estimate([draws.gauss(1, 2) for _ in range(4)])
        assert found.half is not None
        held += abs(found.mean - 1) <= found.half
    assert held / 4000 == pytest.approx(0.95, abs=3.5 * math.sqrt(0.95 * 0.05 / 4000))


@pytest.mark.parametrize("count", [2, 4, 9])
def test_p_is_twice_the_tail_beyond_t_of_the_differences(count: int) -> None:
    draws = random.Random(count)
    first = {seed: draws.gauss(0.3, 0.05) for seed in range(count)}
    other = {seed: value + draws.gauss(0.01, 0.01) for seed, value in first.items()}
    differences = [other[seed] - first[seed] for seed in first]
    mean = sum(differences) / count
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / (count - 1))
    expected = 2 * tail(abs(mean) * math.sqrt(count) / deviation, count - 1)
    assert paired(first, other) == pytest.approx(expected, rel=1e-6)
    assert paired(other, first) == pytest.approx(expected, rel=1e-6)


def test_what_all_seeds_share_does_not_count() -> None:
    first = {seed: 0.1 * seed for seed in range(6)}
    wobble = [0.01, 0.02, 0.015, 0.012, 0.018, 0.011]
    near = paired(first, {seed: value + wobble[seed] for seed, value in first.items()})
    assert near is not None
    assert near < 0.001  # though the seeds differ by ten times as much


def test_only_seeds_that_both_have_are_compared() -> None:
    first, other = {0: 0.1, 1: 0.2, 2: 0.3}, {1: 0.25, 2: 0.33, 7: 0.9}
    assert paired(first, other) == paired({1: 0.2, 2: 0.3}, {1: 0.25, 2: 0.33})
    assert paired(first, {2: 0.3}) is None


def test_differences_that_are_all_the_same() -> None:
    assert paired({0: 0.1, 1: 0.2}, {0: 0.1, 1: 0.2}) == 1.0
    assert paired({0: 0.25, 1: 0.5}, {0: 0.5, 1: 0.75}) == 0.0


def rejected(values: dict[str, float], level: float) -> set[str]:
    """Holm's procedure as it is told: from the smallest on, until one is not below its share of the level."""
    out: set[str] = set()
    for place, name in enumerate(sorted(values, key=lambda name: values[name])):
        if values[name] > level / (len(values) - place):
            break
        out.add(name)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_values_are_below_a_level_where_the_procedure_rejects_at_it(seed: int) -> None:
    draws = random.Random(seed)
    values = {f"loss{number}": draws.random() ** 4 for number in range(8)}
    adjusted = holm(values)
    for level in (0.001, 0.01, 0.05, 0.1, 0.3, 0.7):
        assert {name for name, p in adjusted.items() if p is not None and p <= level} == rejected(values, level)


def test_what_was_not_tested_does_not_count() -> None:
    assert holm({"a": 0.01, "b": None, "c": 0.04}) == {"a": 0.02, "b": None, "c": 0.04}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
