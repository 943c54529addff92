"""What a rule selects as triplets costs a loss on pairs what its triplets cost, and none of them is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.nn.reducers import Mean, NoReduction, PerAnchor, Threshold, TopK
from nearfar.nn.selection import IndexSelection, Selection
from nearfar_pair import (
    angle_rule,
    few_rows,
    mask_sides,
    pair_distances,
    pair_pass,
    plugin,
    row_pass,
    rule_distance,
    sides,
    triplet_pairs,
    triplet_terms,
)
from nearfar_pair.losses import quadruplet

LABELS = torch.tensor([3, 0, 3, 1, 0, 3, 2, 1, 0, 2, 3, 1, 5])
REFERENCE = torch.tensor([0, 1, 4, 0, 3, 3, 1, 2, 0])
#: What makes triplets of its own, or asks more than which pairs there are.
LOSSES = [spec.name for spec in plugin.nearfar_losses() if spec.accepts and spec.family != "wrapper"]
RULES = ["all", "semihard(margin=0.3)", "hard", "easy(margin=0.1)"]
#: By angle, by row, by two margins, over the whole batch, and one positive with every negative.
MORE_RULES = [
    "angular(angle=0.6)",
    "multi_similarity(epsilon=0.05)",
    "pair_margin(pos_margin=0.4, neg_margin=1.2)",
    "hdc(fraction=0.2)",  # an even number; for an odd one see below
    "batch_easy_hard(pos_strategy='hard', neg_strategy='all')",
]
#: Losses as they are asked for; of triplets those too that two rows of distances do not tell.
VARIANTS = ["triplet(swap=True)", "triplet(smooth=True)"]
#: Those that were a cost for each pair: a pair counts as often as it was selected.
COUNTED = ["contrastive", "margin_beta", "snr_contrastive", "histogram", "intra_pair_variance"]


@contextmanager
def by_rows() -> Iterator[None]:
    """However small the batch, a few rows and a few positives at a time."""
    with (
        mock.patch.object(row_pass, "SMALL", 0),
        mock.patch.object(sides, "SMALL", 0),
        mock.patch.object(mask_sides, "SMALL", 0),
        mock.patch.object(pair_distances, "SMALL", 0),
        mock.patch.object(rule_distance, "SMALL", 0),
        mock.patch.object(triplet_terms, "SMALL", 0),
        mock.patch.object(quadruplet, "WHOLE", 0),
        mock.patch.object(few_rows, "CPU_ELEMENTS", 40),
        mock.patch.object(pair_pass, "CPU_ELEMENTS", 90),
        mock.patch.object(triplet_pairs, "ELEMENTS", 60),
        mock.patch.object(angle_rule, "ELEMENTS", 60),
    ):
        yield


def batch(brute: SimpleNamespace, with_reference: bool) -> tuple[Tensor, tuple[Any, ...]]:
    x = brute.clustered(LABELS.tolist()).requires_grad_()
    return x, (brute.clustered(REFERENCE.tolist(), seed=1), REFERENCE) if with_reference else ()


def miner_of(rule: str) -> Any:
    return nearfar.create_miner(f"pair.{rule}")


def select(loss: Any, rule: str, x: Tensor, *reference: Any) -> Any:
    found = miner_of(rule).select(x, LABELS, *reference, loss=loss)
    assert isinstance(found, Selection)
    assert not isinstance(found, IndexSelection)
    return found


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("rule", [*RULES, *MORE_RULES])
@pytest.mark.parametrize("name", [*LOSSES, *VARIANTS])
def test_a_rule_costs_what_its_triplets_cost(
    name: str, rule: str, with_reference: bool, brute: SimpleNamespace
) -> None:
    x, reference = batch(brute, with_reference)
    loss = nearfar.create_loss(f"pair.{name}").double()
    selection = select(loss, rule, x.detach(), *reference)
    values = [loss(x, LABELS, each, *reference) for each in (selection.indices(), selection)]
    with by_rows():
        values.append(loss(x, LABELS, selection, *reference))
        gradients = [torch.autograd.grad(value, x)[0] for value in values]
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        torch.testing.assert_close(value, values[0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
@pytest.mark.parametrize("elements", [40, 400])
@pytest.mark.parametrize("name", [*LOSSES, *VARIANTS])
def test_a_share_that_ends_between_the_two_ways_of_a_pair_ends_there_for_every_loss(
    name: str, elements: int, brute: SimpleNamespace
) -> None:
    # Both ways are as far, and rounding tells which comes first: however few rows a loss takes, it has to be the same.
    x, _ = batch(brute, False)
    loss = nearfar.create_loss(f"pair.{name}").double()
    with by_rows(), mock.patch.object(few_rows, "CPU_ELEMENTS", elements):
        selection = select(loss, "hdc(fraction=0.33)", x.detach())
        a1, p, a2, n = indices = selection.indices()
        for first, second in ((a1, p), (a2, n)):
            ways = set(zip(first.tolist(), second.tolist(), strict=True))
            assert sum((j, i) not in ways for i, j in ways) == 1
        values = [loss(x, LABELS, each) for each in (indices, selection)]
        gradients = [torch.autograd.grad(value, x)[0] for value in values]
    torch.testing.assert_close(values[1], values[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)


def _sides(values: Any) -> list[Tensor]:
    """The costs of every pair, of both sorts where a loss has both."""
    return list(values.values()) if isinstance(values, dict) else [values]


@pytest.mark.parametrize("reducer", [Mean, NoReduction, PerAnchor])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", COUNTED)
def test_every_reducer_counts_a_pair_as_often_as_its_triplets_have_it(
    name: str, rule: str, reducer: Any, brute: SimpleNamespace
) -> None:
    x, _ = batch(brute, False)
    loss = nearfar.create_loss(f"pair.{name}", reducer=reducer()).double()
    selection = select(loss, rule, x.detach())
    found, wanted = (loss(x, LABELS, each) for each in (selection, selection.indices()))
    if reducer is NoReduction:
        found, wanted = (torch.cat([side.sort().values for side in _sides(each)]) for each in (found, wanted))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_on_whole_numbers_ties_fall_as_they_do_for_triplets(rule: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 3, (24, 3), generator=generator).double().requires_grad_()
    y = torch.arange(24) % 5
    distance = nearfar.create_distance("squared_euclidean", normalize=False)
    loss = nearfar.create_loss("pair.contrastive", neg_margin=5.0, distance=distance, reducer=Mean()).double()
    selection = miner_of(rule.replace("0.3", "2").replace("0.1", "1")).select(x.detach(), y, loss=loss)
    wanted = loss(x, y, selection.indices())
    with by_rows():
        torch.testing.assert_close(loss(x, y, selection), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rule", RULES[1:])
@pytest.mark.parametrize("name", ["circle", "contrastive", "triplet", "lifted_structure", "angular", "quadruplet"])
def test_a_rule_on_other_distances_is_applied_to_them(name: str, rule: str, brute: SimpleNamespace) -> None:
    x, _ = batch(brute, False)
    loss = nearfar.create_loss(f"pair.{name}").double()
    miner = nearfar.create_miner(f"pair.{rule}", distance=nearfar.create_distance("euclidean", normalize=False))
    selection = miner.select(x.detach(), LABELS, loss=loss)
    wanted = loss(x, LABELS, selection.indices())
    gradient = torch.autograd.grad(wanted, x)[0]
    with by_rows():
        found = loss(x, LABELS, selection)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(torch.autograd.grad(found, x)[0], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", [*RULES, *MORE_RULES])
@pytest.mark.parametrize(
    "name", ["contrastive", "multi_similarity", "info_nce", "snr_contrastive", "triplet", "angular"]
)
def test_no_triplet_is_made(name: str, rule: str, brute: SimpleNamespace) -> None:
    x, _ = batch(brute, False)
    loss = nearfar.create_loss(f"pair.{name}").double()
    selection = select(loss, rule, x.detach())
    none = AssertionError("pairs or triplets were made")
    with mock.patch.object(type(selection), "indices", side_effect=none), by_rows():
        loss(x, LABELS, selection).backward()


def check_both_derivatives(value_of: Callable[[], Tensor], x: Tensor) -> None:
    """That a value by rows, its gradient and its second derivative are those that it has as a whole."""

    def twice() -> list[Tensor]:
        value = value_of()
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        return [value, gradient, *torch.autograd.grad(gradient.square().sum(), x)]

    wanted = twice()
    with by_rows():
        for found, expected in zip(twice(), wanted, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("reducer", [Threshold(low=0.3), TopK(20)])
@pytest.mark.parametrize("rule", [None, *RULES, "hdc(fraction=0.2)"])
@pytest.mark.parametrize("variant", ["triplet", *VARIANTS, "arcface_triplet"])
def test_reducers_that_look_at_each_triplet_have_the_gradients_of_those_that_are_made(
    variant: str, rule: str | None, reducer: Any, brute: SimpleNamespace
) -> None:
    x, _ = batch(brute, False)
    loss = nearfar.create_loss(f"pair.{variant}", reducer=reducer).double()
    selection = None if rule is None else select(loss, rule, x.detach())
    check_both_derivatives(lambda: loss(x, LABELS, selection), x)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("variant", [*VARIANTS, "triplet", "quadruplet", "angular"])
def test_second_derivatives_are_those_of_what_is_made(variant: str, ties: bool, brute: SimpleNamespace) -> None:
    x = (brute.grid(len(LABELS)) + 0.5 if ties else brute.clustered(LABELS.tolist())).requires_grad_()
    loss = nearfar.create_loss(f"pair.{variant}").double()
    check_both_derivatives(lambda: loss(x, LABELS), x)
