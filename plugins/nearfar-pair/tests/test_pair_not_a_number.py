"""What is no number shows in the loss, whichever way it is computed, and where there is nothing slopes are numbers."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar_pair import few_rows, pair_distances, plugin, row_pass, sides, triplet_terms

LABELS = torch.tensor([5, 5, 1, 5, 2, 5, 7, 2, 5, 1, 5, 9, 5])  # 7 and 9 are alone
#: Those that take no labels, or other losses.
OTHERS = {"vicreg", "cross_batch_memory", "gather", "matryoshka", "symmetric"}
LOSSES = [
    *sorted({spec.name for spec in plugin.nearfar_losses()} - OTHERS),
    "decoupled_contrastive(sigma=0.5)",
    "triplet(smooth=True)",
    "triplet(smooth=True, miner=batch_hard)",
    "triplet(miner=semihard)",
    "contrastive(miner=hdc)",
]
WAYS: dict[str, list[tuple[Any, str, int]]] = {
    "whole": [],
    "table": [(row_pass, "WIDE", 0), (triplet_terms, "FEW", 0)],
    "rows": [
        *((module, "SMALL", 0) for module in (row_pass, sides, pair_distances, triplet_terms)),
        (few_rows, "CPU_ELEMENTS", 40),
    ],
}


@contextlib.contextmanager
def computed(way: str) -> Any:
    with contextlib.ExitStack() as stack:
        for patched in WAYS[way]:
            stack.enter_context(mock.patch.object(*patched))
        yield


def embeddings() -> Tensor:
    return torch.randn(len(LABELS), 6, generator=torch.Generator().manual_seed(0)) + 0.5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LOSSES)
def test_an_embedding_that_is_no_number_makes_the_loss_none(name: str, way: str) -> None:
    x = embeddings()
    x[5, 0] = torch.nan
    x.requires_grad_()
    with computed(way):
        value = nearfar.compose(name, num_classes=10, embedding_size=6)(x, LABELS)
        assert value.isnan()
        value.backward()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LOSSES)
def test_second_derivatives_are_numbers_where_anchors_are_alone(name: str, way: str) -> None:
    criterion = nearfar.compose(name, num_classes=10, embedding_size=6).eval()
    with computed(way):
        _, product = torch.autograd.functional.hvp(lambda x: criterion(x, LABELS), embeddings(), torch.ones(13, 6))
    assert product.isfinite().all()
