"""Every miner that draws nothing selects what its definition says, at ties too, and however few anchors at a time.

The list is that of the plugin, so that no miner is left out.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

import nearfar
from nearfar.testing.selections import as_set
from nearfar_pair import angle_rule, few_rows, mask_sides, plugin, row_pass, rule_distance, sides
from nearfar_pair.miners.drawn import Draws

LABELS = [3, 0, 3, 1, 0, 3, 2, 1, 0, 2, 3, 1, 5]
REFERENCE = [0, 1, 4, 0, 3, 3, 1, 2, 0]
MINERS = {spec.name: spec for spec in plugin.nearfar_miners()}
DRAWN = {name for name, spec in MINERS.items() if not spec.definition}
#: What a batch of whole numbers lies at the bounds of.
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "semihard": [{"margin": 1.0}, {"margin": 2.0}],
    "easy": [{"margin": 1.0}],
    "multi_similarity": [{"epsilon": 1.0}, {"epsilon": 0.0}],
    "pair_margin": [{"pos_margin": 1.0, "neg_margin": 0.7}],
    "angular": [{"angle": 0.349}, {"angle": 0.9}],
    "hdc": [{"fraction": 0.07}, {"fraction": 0.33}, {"fraction": 0.5}, {"fraction": 1.0}],
    "batch_easy_hard": [
        {"pos_strategy": pos, "neg_strategy": neg, "allowed_pos_range": None, "allowed_neg_range": None}
        for pos, neg in (("easy", "semihard"), ("semihard", "hard"), ("all", "easy"), ("hard", "all"))
    ],
}
CASES = [(name, given) for name in MINERS if name not in DRAWN for given in ARGUMENTS.get(name, [{}])]


@contextlib.contextmanager
def by_rows(elements: int) -> Iterator[None]:
    """However small the batch, a few anchors at a time."""
    with (
        mock.patch.object(row_pass, "SMALL", 0),
        mock.patch.object(sides, "SMALL", 0),
        mock.patch.object(mask_sides, "SMALL", 0),
        mock.patch.object(rule_distance, "SMALL", 0),
        mock.patch.object(angle_rule, "SMALL", 0),
        mock.patch.object(few_rows, "CPU_ELEMENTS", elements),
    ):
        yield


def definition(name: str) -> Callable[..., Any]:
    module, _, function = MINERS[name].definition.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def test_only_miners_that_draw_have_no_definition() -> None:
    assert {name for name in MINERS if isinstance(nearfar.create_miner(f"pair.{name}"), Draws)} == DRAWN


@pytest.mark.parametrize("elements", [None, 1, 40])
@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("distance", ["euclidean_raw", "squared_raw", "dot"])
@pytest.mark.parametrize(("name", "given"), CASES, ids=str)
def test_a_miner_selects_what_its_definition_says(
    name: str, given: dict[str, Any], distance: str, with_reference: bool, elements: int | None, brute: SimpleNamespace
) -> None:
    ours, theirs = brute.distances[distance]
    define = definition(name)
    takes_distance = "distance" in inspect.signature(define).parameters
    batch: tuple[Any, ...] = (brute.grid(len(LABELS)), torch.tensor(LABELS), None, None)
    if with_reference:
        batch = (*batch[:2], brute.grid(len(REFERENCE), seed=1), torch.tensor(REFERENCE))
    expected = define(*batch, **given, **({"distance": theirs} if takes_distance else {}))
    assert expected, "the batch must have something to select"
    miner = nearfar.create_miner(f"pair.{name}", **given, **({"distance": ours()} if takes_distance else {}))
    with contextlib.nullcontext() if elements is None else by_rows(elements):
        found = miner(*batch)
    assert as_set(found) == expected
    assert sum(map(len, found[:: 2 if len(found) == 4 else 3])) == len(expected), "nothing is selected twice"
