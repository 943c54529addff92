"""Each part against values worked out by hand, and against the laws of its kind."""

from __future__ import annotations

import math

import nearfar
import pytest
import torch
from nearfar.testing import Check, parts

# Anchor 0 has its positive at √0.8 and its negative at √2, anchor 1 its positive at √0.8 and its negative at √0.4.
EMBEDDINGS = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 1])


def test_the_loss_log_ratio_is_its_formula() -> None:
    loss = nearfar.create_loss("acme.log_ratio", margin=0.2)
    # The positive of anchor 0 is nearer by a factor of √2.5, which is more than the margin asks for.
    second = math.log(math.sqrt(0.8) / math.sqrt(0.4)) + 0.2
    assert loss(EMBEDDINGS, LABELS).item() == pytest.approx((0 + second) / 2)


def test_the_miner_nearest_impostor_takes_every_positive_pair_once() -> None:
    miner = nearfar.create_miner("acme.nearest_impostor")
    assert [index.tolist() for index in miner(EMBEDDINGS, LABELS)] == [[0, 1], [1, 0], [2, 2]]


@parts("acme")
def test_conformance(check: Check) -> None:
    check()
