"""Compiled, the losses are one graph and give what they give otherwise."""

from __future__ import annotations

import pytest
import torch

import nearfar
from nearfar_pair import plugin

#: They walk through the positives of each anchor, whose number is read off the labels: that breaks a graph.
WALK = {"triplet", "hinge_pair", "arcface_triplet", "smooth_ap", "recall_at_k", "pnp", "angular"}
NAMES = [spec.name for spec in plugin.nearfar_losses()]
ARGUMENTS = {"margin_beta": {"num_classes": 8}}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WALK])
def test_a_loss_is_one_graph(name: str) -> None:
    torch._dynamo.reset()
    loss = nearfar.create_loss(f"pair.{name}", **ARGUMENTS.get(name, {})).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.arange(8).repeat(3)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    found, wanted = (torch.autograd.grad(value, x)[0] for value in (compiled(x, y), loss(x, y)))
    torch.testing.assert_close(compiled(x, y), loss(x, y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
