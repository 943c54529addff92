"""Backward passes written by hand, begun inside an autocast block as many a training loop does."""

from __future__ import annotations

import pytest
import torch

import nearfar

#: With 64 samples, distances enough for every loss to work a block of classes at a time.
CLASSES, SAMPLES, DIM = 20_000, 64, 16
LOSSES = [
    "proxy.proxy_nca",
    "proxy.proxy_nca(scale=40)",
    "proxy.proxy_nca_pp",
    "proxy.proxy_anchor",
    "proxy.soft_triple(centers=2)",
]


@pytest.mark.parametrize("text", LOSSES)
def test_a_backward_pass_inside_autocast_is_that_outside_of_it(text):
    torch.manual_seed(0)
    x, y = torch.randn(SAMPLES, DIM), torch.randint(0, CLASSES, (SAMPLES,))
    loss = nearfar.create_loss(text, num_classes=CLASSES, embedding_size=DIM)
    leaves = [x.requires_grad_(), *loss.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(loss(x, y), leaves)
        value = loss(x, y)
    outside = torch.autograd.grad(value, leaves)
    for found, expected in zip(inside, outside, strict=True):
        # What autograd multiplies around the pass may be rounded to bfloat16, 8 bits.
        error = float((found - expected).norm() / expected.norm())
        assert error <= 2**-7
