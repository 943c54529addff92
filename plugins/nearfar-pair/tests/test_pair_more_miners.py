"""The miners of pairs, of chosen triplets and of angles select what their definitions say, ties included."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.distances import Cosine, Dot, Euclidean, SquaredEuclidean
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.miners import Miner
from nearfar.nn.selection import TripletRule
from nearfar_pair import definitions
from nearfar_pair.losses.info_nce import InfoNCE
from nearfar_pair.losses.multi_similarity import MultiSimilarity
from nearfar_pair.losses.triplet import Triplet
from nearfar_pair.miners.angular import Angular
from nearfar_pair.miners.batch_easy_hard import STRATEGIES, BatchEasyHard
from nearfar_pair.miners.easy import Easy
from nearfar_pair.miners.hard import Hard
from nearfar_pair.miners.hard_negative_all_positive import HardNegativeAllPositive
from nearfar_pair.miners.multi_similarity import MultiSimilarityMiner
from nearfar_pair.miners.pair_margin import PairMargin
from nearfar_pair.miners.semihard import SemiHard
from nearfar_pair.miners.semihard_one import SemiHardOne
from nearfar_pair.sides import PairRule

LABELS = [3, 0, 3, 1, 0, 3, 2, 1, 0, 2, 3, 1, 5]
REFERENCE = [0, 1, 4, 0, 3, 3, 1, 2, 0]
STRATEGY_PAIRS: list[tuple[Any, Any]] = [
    (pos, neg)
    for pos in STRATEGIES
    for neg in STRATEGIES
    if "semihard" not in (pos, neg) or not {pos, neg} <= {"semihard", "all"}
]
#: Each with its definition and the arguments of both; on whole numbers some pair or triplet lies at every bound.
CASES: dict[str, tuple[Callable[..., Miner], Callable[..., Any], dict[str, Any]]] = {
    "semihard_one": (SemiHardOne, definitions.semihard_one, {}),
    "easy": (Easy, definitions.easy, {"margin": 1.0}),
    "hard_negative_all_positive": (HardNegativeAllPositive, definitions.hard_negative_all_positive, {}),
    "multi_similarity": (MultiSimilarityMiner, definitions.multi_similarity, {"epsilon": 1.0}),
    "multi_similarity_strict": (MultiSimilarityMiner, definitions.multi_similarity, {"epsilon": 0.0}),
}
EVERY: list[Callable[[], Miner]] = [
    SemiHardOne,
    lambda: Easy(0.2),
    HardNegativeAllPositive,
    MultiSimilarityMiner,
    PairMargin,
    BatchEasyHard,
    Angular,
]


def as_set(found: tuple[torch.Tensor, ...]) -> set[tuple[Any, ...]]:
    rows = [index.tolist() for index in found]
    if len(rows) == 3:
        chosen: list[tuple[Any, ...]] = list(zip(*rows, strict=True))
    else:
        chosen = [("positive", *pair) for pair in zip(*rows[:2], strict=True)]
        chosen += [("negative", *pair) for pair in zip(*rows[2:], strict=True)]
    assert len(set(chosen)) == len(chosen), "nothing is selected twice"
    return set(chosen)


def sets(brute: SimpleNamespace, with_reference: bool) -> Any:
    x, y = brute.grid(len(LABELS)), torch.tensor(LABELS)
    return (x, y, brute.grid(len(REFERENCE), seed=1), torch.tensor(REFERENCE)) if with_reference else (x, y, None, None)


@settings(deadline=None, max_examples=40)
@given(labels=st.lists(st.integers(0, 3), max_size=10), seed=st.integers(0, 1000))
def test_any_labels(labels: list[int], seed: int, brute: SimpleNamespace) -> None:
    batch: Any = (brute.grid(len(labels), dim=2, seed=seed), torch.tensor(labels, dtype=torch.int64), None, None)
    ours, theirs = brute.distances["squared_raw"]
    for make, define, arguments in CASES.values():
        assert as_set(make(distance=ours(), **arguments)(*batch)) == define(*batch, distance=theirs, **arguments)
    for pos, neg in STRATEGY_PAIRS:
        expected = definitions.batch_easy_hard(*batch, theirs, pos, neg, None, None)
        assert as_set(BatchEasyHard(pos, neg, distance=ours())(*batch)) == expected


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("ranges", [(None, None), ((1.0, 9.0), None), (None, (2.0, 8.0)), ((1.0, 9.0), (2.0, 8.0))])
@pytest.mark.parametrize(("pos", "neg"), STRATEGY_PAIRS)
def test_batch_easy_hard_has_every_strategy_and_range(
    pos: Any, neg: Any, ranges: tuple[Any, Any], with_reference: bool, brute: SimpleNamespace
) -> None:
    batch = sets(brute, with_reference)
    ours, theirs = brute.distances["squared_raw"]
    expected = definitions.batch_easy_hard(*batch, theirs, pos, neg, *ranges)
    assert expected, "the batch must have something to select"
    assert as_set(BatchEasyHard(pos, neg, *ranges, distance=ours())(*batch)) == expected


def test_a_range_for_a_similarity_is_of_similarities(brute: SimpleNamespace) -> None:
    batch = sets(brute, False)
    expected = definitions.batch_easy_hard(
        *batch, brute.distances["dot"][1], "hard", "hard", (-3.0, 1.0), (-math.inf, 2.0)
    )
    found = BatchEasyHard("hard", "hard", (-1.0, 3.0), (-2.0, math.inf), distance=Dot())(*batch)
    assert as_set(found) == expected != set()


@pytest.mark.parametrize("strategies", [("semi-hard", "hard"), ("easy", "hardest"), ("Easy", "hard"), ("", "all")])
def test_an_unknown_strategy_is_refused(strategies: tuple[Any, Any]) -> None:
    with pytest.raises(ArgumentError, match="_strategy must be one of 'easy', 'hard', 'semihard', 'all'"):
        BatchEasyHard(*strategies)


@pytest.mark.parametrize("strategies", [("semihard", "semihard"), ("semihard", "all"), ("all", "semihard")])
def test_semihard_beside_what_is_not_one_element_is_refused(strategies: tuple[Any, Any]) -> None:
    with pytest.raises(ArgumentError, match="'easy' or 'hard'"):
        BatchEasyHard(*strategies)


@pytest.mark.parametrize("wrong", [(1.0, 0.5), (1.0,), 1.0, (0.0, math.nan), ("0", 1.0), (True, 2.0)])
def test_a_range_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="allowed_pos_range"):
        BatchEasyHard(allowed_pos_range=wrong)
    with pytest.raises(ArgumentError, match="allowed_neg_range"):
        BatchEasyHard(allowed_neg_range=wrong)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("distance", ["euclidean_raw", "squared_raw", "dot"])
def test_pair_margin_compares_with_the_distance_itself_and_leaves_out_the_margins(
    distance: str, with_reference: bool, brute: SimpleNamespace
) -> None:
    x, y, reference, labels = sets(brute, with_reference)
    ours, theirs = brute.distances[distance]
    sign = -1 if distance == "dot" else 1
    found = as_set(PairMargin(1.0, 2.0, distance=ours())(x, y, reference, labels))
    pairs = brute.pairs(LABELS, REFERENCE if with_reference else None)
    expected, edges = set(), 0
    for side, (name, margin) in zip(pairs, (("positive", 1.0), ("negative", 2.0)), strict=True):
        for i, j in side:
            value = sign * theirs(x[i].tolist(), (x if reference is None else reference)[j].tolist())
            edges += value == margin
            beyond = sign * (value - margin) > 0
            if value != margin and beyond == (name == "positive"):
                expected.add((name, i, j))
    assert edges, "some pair must lie at a margin"
    assert found == expected != set()


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("degrees", [5, 20, 45, 80])
def test_angular_selects_wide_angles(degrees: float, with_reference: bool, brute: SimpleNamespace) -> None:
    angle = math.radians(degrees)
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    batch: Any = (x, y, brute.clustered(REFERENCE, seed=1), torch.tensor(REFERENCE)) if with_reference else (x, y)
    expected = definitions.angular(*(batch if with_reference else (*batch, None, None)), angle)
    assert as_set(Angular(angle)(*batch)) == expected
    assert expected or degrees == 80


def test_angular_has_no_angle_between_equal_points_and_a_right_one_at_their_middle() -> None:
    y = torch.tensor([0, 0, 1])
    same = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert as_set(Angular(0.0)(same, y)) == set()
    middle = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    assert as_set(Angular(1.5)(middle, y)) == {(0, 1, 2), (1, 0, 2)}


@pytest.mark.parametrize("angle", [-0.1, math.pi / 2, 20, math.nan, "0.3", True])
def test_an_angle_out_of_its_range_is_refused(angle: Any) -> None:
    with pytest.raises(ArgumentError, match="angle"):
        Angular(angle)


def test_easy_semihard_and_hard_divide_all_triplets(brute: SimpleNamespace) -> None:
    x, y, _, _ = sets(brute, False)
    distance = SquaredEuclidean(normalize=False)
    parts = [as_set(m(x, y)) for m in (Hard(distance=distance), SemiHard(1.0, distance=distance))]
    parts.append(as_set(Easy(1.0, distance=distance)(x, y)))
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert set.union(*parts) == definitions.all_triplets(x, y, None, None)


def test_easy_is_a_rule_and_takes_the_margin_of_its_loss() -> None:
    x, y = torch.randn(8, 3), torch.arange(4).repeat(2)
    rule = Easy().select(x, y, loss=Triplet(margin=0.7))
    assert isinstance(rule, TripletRule)
    assert (rule.lower, rule.upper) == (0.7, math.inf)
    with pytest.raises(ArgumentError, match="margin"):
        Easy()(x, y)


def test_multi_similarity_mines_by_cosine_unless_a_loss_or_argument_says_otherwise() -> None:
    x, y = torch.randn(12, 4), torch.arange(4).repeat(3)
    alone, cosine = MultiSimilarityMiner(), MultiSimilarityMiner(distance=Cosine())
    assert as_set(alone(x, y)) == as_set(cosine(x, y))
    loss = Triplet(distance=Euclidean(normalize=False))
    raw = MultiSimilarityMiner(distance=Euclidean(normalize=False))
    assert as_set(alone.select(x, y, loss=loss).indices()) == as_set(raw(x, y)) != as_set(cosine(x, y))


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("make", [lambda: MultiSimilarityMiner(0.3), lambda: PairMargin(0.9, 0.1)])
@pytest.mark.parametrize("loss", [MultiSimilarity(), InfoNCE(temperature=0.5)])
def test_a_loss_on_the_same_distance_costs_the_same_by_the_rule_and_by_its_pairs(
    make: Callable[[], Miner], loss: EmbeddingLoss, with_reference: bool, brute: SimpleNamespace
) -> None:
    x, y = brute.clustered(LABELS).requires_grad_(), torch.tensor(LABELS)
    reference = (brute.clustered(REFERENCE, seed=1), torch.tensor(REFERENCE)) if with_reference else (None, None)
    rule = make().select(x, y, *reference, loss=loss)
    assert isinstance(rule, PairRule)
    pairs = rule.indices()
    assert 0 < len(pairs[0]) + len(pairs[2]) < len(LABELS) * len(x)
    values = [loss(x, y, each, *reference) for each in (rule, pairs)]
    gradients = [torch.autograd.grad(value, x)[0] for value in values]
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_a_rule_of_another_batch_is_refused() -> None:
    x, y = torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    rule = MultiSimilarityMiner().select(x, y)
    with pytest.raises(InputError, match="6 embeddings"):
        MultiSimilarity()(x[:4], y[:4], rule)


def test_nan_is_handed_on_rather_than_left_out() -> None:
    x, y = torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    x[0, 0] = math.nan
    for make in EVERY:
        found = as_set(make()(x, y))
        assert any(0 in choice for choice in found), make
        for choice in found:
            signed = [choice] if isinstance(choice[0], str) else [("positive", *choice[:2]), ("negative", *choice[::2])]
            assert all((y[i] == y[j]) == (sign == "positive") for sign, i, j in signed), make


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("labels", [[], [0]])
def test_where_there_is_no_pair_none_is_selected(make: Callable[[], Miner], labels: list[int]) -> None:
    found = make()(torch.randn(len(labels), 3), torch.tensor(labels, dtype=torch.int64))
    assert len(found) in (3, 4)
    assert all(index.shape == (0,) and index.dtype == torch.int64 for index in found)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_where_a_side_is_missing_there_is_no_triplet(make: Callable[[], Miner], labels: list[int]) -> None:
    selection = make().select(torch.randn(3, 3), torch.tensor(labels))
    assert [len(index) for index in selection.triplets()] == [0, 0, 0]


@pytest.mark.parametrize("make", EVERY)
def test_an_empty_reference_has_nothing_to_select(make: Callable[[], Miner]) -> None:
    found = make()(torch.randn(3, 2), torch.tensor([0, 0, 1]), torch.randn(0, 2), torch.tensor([], dtype=torch.int64))
    assert all(len(index) == 0 for index in found)


@pytest.mark.parametrize("make", EVERY)
def test_half_precision_selects_as_float32_of_the_same_numbers(make: Callable[[], Miner]) -> None:
    x, y = torch.randn(12, 4).bfloat16(), torch.arange(4).repeat(3)
    assert as_set(make()(x, y)) == as_set(make()(x.float(), y))


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "0.1", True])
def test_a_slack_or_margin_that_is_no_number_is_refused(bad: Any) -> None:
    with pytest.raises(ArgumentError, match="epsilon"):
        MultiSimilarityMiner(bad)
    with pytest.raises(ArgumentError, match="margin"):
        Easy(bad)
    if bad != -0.1:
        with pytest.raises(ArgumentError, match="pos_margin"):
            PairMargin(bad)
        with pytest.raises(ArgumentError, match="neg_margin"):
            PairMargin(0.2, bad)
