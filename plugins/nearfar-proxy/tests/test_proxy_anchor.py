"""Proxy-Anchor against the paper's formula, as loops over plain Python numbers."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction, Sum
from nearfar_proxy import blocks
from nearfar_proxy.proxy_anchor import ProxyAnchor
from nearfar_proxy.repulsion import repulsion

C, D = 7, 5


def batch(n=9, seed=2, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=g, dtype=torch.float64)
    return x.to(dtype), torch.randint(C - 2, (n,), generator=g)


def made(**arguments):
    torch.manual_seed(1)
    return ProxyAnchor(C, D, **arguments).double()


def formula(loss, x, y, weights=None):
    """The two lists of logarithms, of the proxies with samples and of all proxies."""
    x, w = (torch.nn.functional.normalize(t.detach(), dim=1).tolist() for t in (x, loss.weight))
    weights = [1.0] * len(x) if weights is None else weights
    positive, negative = {}, {}
    for p in range(C):
        near, far = 0.0, 0.0
        for xi, yi, wi in zip(x, y.tolist(), weights, strict=True):
            cosine = sum(a * b for a, b in zip(xi, w[p], strict=True))
            if yi == p:
                near += wi * math.exp(-loss.scale * (cosine - loss.margin))
            else:
                far += wi * math.exp(loss.scale * (cosine + loss.margin))
        if any(yi == p and wi > 0 for yi, wi in zip(y.tolist(), weights, strict=True)):
            positive[p] = math.log1p(near)
        negative[p] = math.log1p(far)
    return positive, negative


@pytest.mark.parametrize("arguments", [{}, {"margin": 0.3, "scale": 8.0}], ids=["paper", "others"])
def test_it_is_the_sum_of_the_two_means(arguments):
    loss = made(**arguments)
    x, y = batch()
    positive, negative = formula(loss, x, y)
    expected = math.fsum(positive.values()) / len(positive) + math.fsum(negative.values()) / C
    assert loss(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_unreduced_there_is_a_value_for_each_proxy():
    loss = made(reducer=NoReduction())
    x, y = batch()
    positive, negative = formula(loss, x, y)
    found = loss(x, y)
    assert found["positive"].tolist() == pytest.approx([positive[p] for p in sorted(positive)], rel=1e-12)
    assert found["negative"].tolist() == pytest.approx([negative[p] for p in range(C)], rel=1e-12)


def test_what_is_left_out_by_a_miner_has_no_part_and_no_gradient():
    """pytorch-metric-learning leaves such a sample a factor of 1/e in the sums."""
    loss = made()
    x, y = batch()
    x.requires_grad_()
    triplets = [(0, 1, 3), (0, 5, 3), (0, 6, 7), (0, 8, 3)]
    value = loss(x, y, tuple(torch.tensor(triplets).T))
    value.backward()
    weights = [sum(triplet.count(i) for triplet in triplets) / 4 for i in range(9)]
    positive, negative = formula(loss, x, y, weights)
    expected = math.fsum(positive.values()) / len(positive) + math.fsum(negative.values()) / C
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert (x.grad[[2, 4]] == 0).all()
    assert (x.grad[[0, 1, 3]] != 0).any()


def test_with_nothing_selected_it_is_zero_and_can_be_differentiated():
    loss = made()
    x, y = batch()
    value = loss(x.requires_grad_(), y, (torch.zeros(0, dtype=torch.long),) * 3)
    value.backward()
    assert value.item() == 0
    assert (x.grad == 0).all()


@pytest.mark.parametrize("reducer", [None, Sum(), NoReduction()], ids=["mean", "sum", "none"])
@pytest.mark.parametrize("held", [10**6, 20], ids=["one_block", "blocks"])
def test_gradients_are_those_of_finite_differences(reducer, held, monkeypatch):
    monkeypatch.setitem(blocks._HELD, "cpu", held)
    loss = made(reducer=reducer, scale=8.0)
    x, y = batch()

    def value(x, weight):
        found = torch.func.functional_call(loss, {"weight": weight}, (x, y))
        return tuple(found.values()) if isinstance(found, dict) else found

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), loss.weight.detach().clone().requires_grad_()))


@pytest.mark.parametrize("held", [1, 30, 10**6])
def test_blocks_of_proxies_change_nothing(held, monkeypatch):
    loss, (x, y) = made(), batch()
    expected = loss(x, y).item()
    monkeypatch.setitem(blocks._HELD, "cpu", held)
    assert loss(x, y).item() == pytest.approx(expected, rel=1e-14)


def test_a_graph_that_is_kept_gives_the_same_gradient_twice():
    loss, (x, y) = made(), batch()
    value = loss(x.requires_grad_(), y)
    first = torch.autograd.grad(value, [x, loss.weight], retain_graph=True)
    second = torch.autograd.grad(value, [x, loss.weight])
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_a_second_derivative_is_refused():
    loss, (x, y) = made(), batch()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss(x.requires_grad_(), y), x, create_graph=True)


def test_far_cosines_and_zero_vectors_are_finite():
    loss = made(scale=512.0).float()
    x = torch.cat([loss.weight.detach()[:2], -loss.weight.detach()[:2], torch.zeros(1, D)]).requires_grad_()
    value = loss(x, torch.tensor([0, 1, 0, 1, 2]))
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()
    assert loss.weight.grad.isfinite().all()


def test_of_an_empty_batch_it_is_zero():
    loss = made()
    x = torch.zeros(0, D, dtype=torch.float64, requires_grad=True)
    value = loss(x, torch.zeros(0, dtype=torch.long))
    value.backward()
    assert value.item() == 0
    units = torch.zeros(0, D, dtype=torch.float64)
    pushed, cosines = repulsion(units, loss.weight, torch.zeros(0, dtype=torch.long), None, scale=1.0, margin=0.0)
    assert (pushed == 0).all()
    assert cosines.shape == (0,)


def test_wrong_arguments_are_refused():
    with pytest.raises(ArgumentError, match="scale"):
        ProxyAnchor(C, D, scale=0.0)
    with pytest.raises(ArgumentError, match="margin"):
        ProxyAnchor(C, D, margin=-0.1)
    with pytest.raises(InputError, match="labels run from 0 to 6"):
        made()(batch()[0], torch.full((9,), C))
