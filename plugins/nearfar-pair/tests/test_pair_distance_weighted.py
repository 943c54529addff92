"""Distance-weighted draws: as likely as the formula says, at any embedding size, and the same when resumed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from nearfar.errors import ArgumentError
from nearfar_pair.miners.distance_weighted import DistanceWeighted

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])


def batch(size: int = 4) -> torch.Tensor:
    return torch.randn(len(LABELS), size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def likelihood(x: torch.Tensor, a: int, cutoff: float, far: float) -> dict[int, float]:
    """The probability of each negative of an anchor, by the formula."""
    size = x.shape[1]
    rows = [[v / math.hypot(*row) for v in row] for row in x.tolist()]
    weights = {}
    for n, label in enumerate(LABELS.tolist()):
        d = math.dist(rows[a], rows[n])
        if label != int(LABELS[a]) and d < far:
            d = max(d, cutoff)
            weights[n] = 1 / (d ** (size - 2) * (1 - d * d / 4) ** ((size - 3) / 2))
    total = math.fsum(weights.values())
    return {n: w / total for n, w in weights.items()}


@pytest.mark.parametrize("size", [2, 4, 9])
def test_negatives_are_drawn_as_often_as_the_formula_says(size: int) -> None:
    x, miner, calls = batch(size), DistanceWeighted(0.9, 1.6), 2000
    found = [torch.stack(miner(x, LABELS)) for _ in range(calls)]
    triplets = torch.cat(found, 1)
    for a in range(len(LABELS)):
        expected = likelihood(x, a, 0.9, 1.6)
        for p in range(len(LABELS)):
            drawn = triplets[2][(triplets[0] == a) & (triplets[1] == p)].tolist()
            if p == a or LABELS[p] != LABELS[a] or not expected:
                assert not drawn
                continue
            assert len(drawn) == calls, "one for each positive pair and call"
            assert set(drawn) <= set(expected)
            for n, probability in expected.items():
                spread = math.sqrt(probability * (1 - probability) / calls)
                assert abs(drawn.count(n) / calls - probability) <= 5 * spread + 1e-12


def test_one_hard_pair_takes_no_other_anchor_away_in_high_dimensions() -> None:
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    x[1] = x[0] + 0.01 * x[2]
    y = torch.arange(32).repeat(2)
    a, _, n = DistanceWeighted(nonzero_loss_cutoff=1.5)(x, y)
    assert sorted(a.tolist()) == list(range(64))
    assert (n[a == 0], n[a == 1]) == (1, 0)


def test_draws_are_counted_so_that_a_resumed_run_goes_on() -> None:
    x, whole, first = batch(), DistanceWeighted(seed=5), DistanceWeighted(seed=5)
    expected = [whole(x, LABELS)[2].tolist() for _ in range(6)]
    assert len({tuple(draw) for draw in expected}) > 1, "calls differ"
    assert [first(x, LABELS)[2].tolist() for _ in range(3)] == expected[:3]
    resumed = DistanceWeighted(seed=5)
    resumed.load_state_dict(first.state_dict())
    torch.manual_seed(99)
    assert [resumed(x, LABELS)[2].tolist() for _ in range(3)] == expected[3:]
    other = DistanceWeighted(seed=6)
    assert [other(x, LABELS)[2].tolist() for _ in range(6)] != expected


def test_in_eval_mode_a_batch_has_one_draw() -> None:
    x, miner = batch(), DistanceWeighted().eval()
    assert all(map(torch.equal, miner(x, LABELS), miner(x, LABELS)))
    assert int(miner.calls) == 0


def test_the_generator_of_the_program_is_left_alone() -> None:
    before = torch.get_rng_state()
    DistanceWeighted()(batch(), LABELS)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_draws_from_the_reference() -> None:
    x, reference = batch()[:3], batch()[3:]
    a, p, n = DistanceWeighted(nonzero_loss_cutoff=2.0)(x, LABELS[:3], reference.flip(0), LABELS[[0, 1, 2, 3, 4]])
    assert len(a) == 9
    assert set(p.tolist()) == {0, 1, 2}
    assert set(n.tolist()) <= {3, 4}


@pytest.mark.parametrize("labels", [[], [0], [0, 0], [0, 1]])
def test_where_there_is_no_triplet_none_is_drawn(labels: list[int]) -> None:
    found = DistanceWeighted()(torch.randn(len(labels), 3), torch.tensor(labels, dtype=torch.int64))
    assert all(index.shape == (0,) and index.dtype == torch.int64 for index in found)


@pytest.mark.parametrize("wrong", [{"cutoff": 0.0}, {"cutoff": 2.0}, {"nonzero_loss_cutoff": 2.1}, {"seed": -1}])
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        DistanceWeighted(**wrong)
