"""With any miner that fits a loss keeps memory that grows with the batch, not with its pairs or its triplets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch

import nearfar
from nearfar.testing.meter import peak_bytes
from nearfar_pair import (
    angle_rule,
    bins,
    few_rows,
    mask_sides,
    pair_distances,
    pair_pass,
    row_pass,
    rule_distance,
    sides,
    soft_ranks,
    triplet_pairs,
    triplet_terms,
)
from nearfar_pair.losses import graded_log_ratio, quadruplet

#: As many embeddings, and twice as many, four of each class.
FEW, PER_CLASS, DIM = 128, 4, 4
#: Twice as much, and what does not grow; a matrix of all pairs takes four times as much.
MOST = 2.6
#: Called with another loss; or with a number for each embedding and class, which is four times as many.
OTHERS = {"cross_batch_memory", "gather", "matryoshka", "symmetric", "centroid_triplet", "instance"}
MARGINS = {"semihard": "(margin=0.2)", "easy": "(margin=0.2)"}

LOSSES = [loss for loss in nearfar.list_losses("pair.*") if loss not in OTHERS] + [
    "triplet(swap=True)",
    "triplet(smooth=True)",
    'lifted_structure(form="hard")',
]
MINERS = nearfar.list_miners("pair.*")
#: One of each way of working: an anchor's row, pairs, both ends of a pair, triplets, quadruplets.
OF_EACH_WAY = ("circle", "contrastive", "angular", "lifted_structure", "triplet", "triplet(swap=True)", "quadruplet")
#: Miners that select too much for indices: triplets by distance and by angle, pairs by row and over the whole batch.
RULES = ("semihard", "angular", "multi_similarity", "hdc")


@contextmanager
def a_few_rows_at_a_time() -> Iterator[None]:
    """However small the batch."""
    with ExitStack() as stack:
        for module in (row_pass, sides, mask_sides, rule_distance, pair_distances, triplet_terms, graded_log_ratio):
            stack.enter_context(mock.patch.object(module, "SMALL", 0))
        stack.enter_context(mock.patch.object(quadruplet, "WHOLE", 0))
        for module in (few_rows, pair_pass, pair_distances, soft_ranks):
            stack.enter_context(mock.patch.object(module, "CPU_ELEMENTS", 2**12))
        for module in (triplet_pairs, angle_rule, bins):
            stack.enter_context(mock.patch.object(module, "ELEMENTS", 2**12))
        yield


def compositions(losses: Any, miners: Any) -> list[str]:
    recipes = []
    for loss in losses:
        name, _, arguments = loss.partition("(")
        for miner in miners:
            given = [arguments.rstrip(")"), f"miner=pair.{miner}{MARGINS.get(miner, '')}" if miner else ""]
            recipe = f"pair.{name}({', '.join(filter(None, given))})"
            problems = nearfar.Recipe.of(recipe).check()
            recipes += [] if any(problem.severity == "error" for problem in problems) else [recipe]
    return recipes


def step(recipe: str, n: int, *, with_reference: bool) -> Callable[[], Any]:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(n) // PER_CLASS)[torch.randperm(n, generator=generator)]
    x = torch.randn(n, DIM, generator=generator)[labels] + torch.randn(n, DIM, generator=generator)
    criterion = nearfar.compose(recipe)
    given: dict[str, Any] = {}
    if with_reference or recipe.startswith("pair.vicreg"):
        given = {"ref_emb": x + 0.1, "ref_labels": labels}
    x.requires_grad_()
    return lambda: torch.autograd.grad(criterion(x, labels, **given), x)


def growth(recipe: str, *, with_reference: bool) -> float:
    """How many times the memory at its highest is that of half the batch."""
    few, many = (peak_bytes(step(recipe, n, with_reference=with_reference)) for n in (FEW, 2 * FEW))
    return many / few


@pytest.mark.parametrize("recipe", [*compositions(LOSSES, [""]), *compositions(OF_EACH_WAY, RULES)])
def test_memory_grows_with_the_batch(recipe: str) -> None:
    with a_few_rows_at_a_time():
        assert growth(recipe, with_reference=False) < MOST


@pytest.mark.long
@pytest.mark.parametrize("recipe", compositions(LOSSES, MINERS))
def test_memory_grows_with_the_batch_whatever_is_mined(recipe: str) -> None:
    with a_few_rows_at_a_time():
        assert growth(recipe, with_reference=False) < MOST


#: But for which negatives a rule selects for each end of a pair, which is kept, a byte a pair, of two sets.
BESIDE = [
    *compositions(OF_EACH_WAY, [""]),
    *compositions([w for w in OF_EACH_WAY if w != "lifted_structure"], ["semihard"]),
]


@pytest.mark.parametrize("recipe", BESIDE)
def test_memory_grows_with_the_batch_beside_a_reference_set(recipe: str) -> None:
    with a_few_rows_at_a_time():
        assert growth(recipe, with_reference=True) < MOST


@pytest.mark.parametrize("reducer", ["threshold(low=0.3)", "top_k(k=64)"])
@pytest.mark.parametrize("loss", ["triplet", "triplet(swap=True)", "arcface_triplet", "triplet(miner=semihard)"])
def test_reducers_that_look_at_each_triplet_keep_a_few_bytes_of_it(loss: str, reducer: str) -> None:
    # Their indices alone would be 24 bytes each, and as much again in the graph.
    n, k = 2 * FEW, PER_CLASS - 1
    recipe = f"{loss.rstrip(')')}{', ' if '(' in loss else '('}reducer={reducer})"
    with a_few_rows_at_a_time():
        assert peak_bytes(step(recipe, n, with_reference=False)) < 6 * n * k * (n - PER_CLASS)


def test_a_matrix_of_all_pairs_would_be_seen() -> None:
    with mock.patch.object(row_pass, "SMALL", 2**20), mock.patch.object(sides, "SMALL", 2**20):
        assert growth("pair.circle", with_reference=False) > MOST
