"""Compiled, the losses are one graph and give what they give otherwise."""

from __future__ import annotations

import pytest
import torch

import nearfar
from nearfar_pair import plugin

#: They walk through the positives of each anchor, whose number is read off the labels: that breaks a graph.
WALK = {"triplet", "hinge_pair", "arcface_triplet", "smooth_ap", "recall_at_k", "pnp", "angular"}
#: So does a table as long as the batch has classes, or pairs near enough to cost something.
COUNT = {"quadruplet", "centroid_triplet"}
#: It answers by what earlier calls left in it.
REMEMBER = {"cross_batch_memory"}
NAMES = [spec.name for spec in plugin.nearfar_losses() if spec.name not in WALK | COUNT | REMEMBER]
RECIPES = {
    "margin_beta": "margin_beta(num_classes=8)",
    "instance": "pair.instance(num_classes=8, embedding_size=6)",
    "symmetric": "symmetric(loss=info_nce)",
    "matryoshka": "matryoshka(loss=sup_con, dims=[3, 6])",
    "gather": "gather(loss=sup_con)",
}
TWO_VIEWS = {"vicreg", "symmetric"}


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_one_graph(name: str) -> None:
    torch._dynamo.reset()
    loss = nearfar.compose(RECIPES.get(name, f"pair.{name}")).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.arange(8).repeat(3)
    of = (x, y, None, x.detach().flip(1), y) if name in TWO_VIEWS else (x, y)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    found, wanted = (torch.autograd.grad(value, x)[0] for value in (compiled(*of), loss(*of)))
    torch.testing.assert_close(compiled(*of), loss(*of), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
