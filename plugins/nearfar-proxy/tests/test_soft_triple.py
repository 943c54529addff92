"""SoftTriple against the paper's formula, as loops over plain Python numbers."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import ArgumentError
from nearfar.nn.reducers import NoReduction
from nearfar_proxy import blocks
from nearfar_proxy.soft_triple import SoftTriple

C, K, D = 6, 3, 4


def batch(n=7, seed=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=g, dtype=torch.float64), torch.randint(C, (n,), generator=g)


def made(**arguments):
    torch.manual_seed(8)
    return SoftTriple(C, D, **{"centers": K, **arguments}).double()


def cosine(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def formula(loss, x, y):
    soft, w = loss.soft, loss.weight.tolist()
    samples = []
    for a, label in zip(x.tolist(), y.tolist(), strict=True):
        logits = []
        for j, centers in enumerate(w):
            cosines = [cosine(a, c) for c in centers]
            exps = [math.exp(v / soft.gamma) for v in cosines]
            similarity = sum(e * v for e, v in zip(exps, cosines, strict=True)) / sum(exps)
            logits.append(soft.scale * (similarity - (soft.margin if j == label else 0)))
        samples.append(math.log(math.fsum(map(math.exp, logits))) - logits[label])
    apart = []
    for centers in w:
        k = len(centers)
        total = sum(math.sqrt(2 - 2 * cosine(centers[t], centers[s])) for t in range(k) for s in range(t + 1, k))
        apart.append(loss.tau * total / max(k * (k - 1), 1))
    return samples, apart


VARIANTS = [{}, {"centers": 1}, {"gamma": 0.5, "scale": 5.0, "margin": 0.3, "tau": 1.0}]


@pytest.mark.parametrize("arguments", VARIANTS)
@pytest.mark.parametrize("held", [10**6, 40], ids=["one_block", "blocks"])
def test_each_value_is_the_papers(arguments, held, monkeypatch):
    monkeypatch.setitem(blocks._HELD, "cpu", held)
    loss = made(**arguments, reducer=NoReduction())
    x, y = batch()
    samples, apart = formula(loss, x, y)
    found = loss(x, y)
    assert found["loss"].tolist() == pytest.approx(samples, rel=1e-11)
    assert found["regularizer"].tolist() == pytest.approx(apart, rel=1e-11, abs=1e-15)


def test_it_is_the_sum_of_the_two_means():
    loss = made()
    x, y = batch()
    samples, apart = formula(loss, x, y)
    assert loss(x, y).item() == pytest.approx(math.fsum(samples) / 7 + math.fsum(apart) / C, rel=1e-12)


@pytest.mark.parametrize("arguments", VARIANTS)
@pytest.mark.parametrize("held", [10**6, 40], ids=["one_block", "blocks"])
def test_gradients_are_those_of_finite_differences(arguments, held, monkeypatch):
    monkeypatch.setitem(blocks._HELD, "cpu", held)
    loss = made(**arguments, reducer=NoReduction())
    x, y = batch()

    def value(x, weight):
        return tuple(torch.func.functional_call(loss, {"weight": weight}, (x, y)).values())

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), loss.weight.detach().clone().requires_grad_()))


def test_with_nothing_selected_the_centres_cost_nothing():
    x, y = batch()
    assert made()(x, y, (torch.zeros(0, dtype=torch.long),) * 3).item() == 0


def test_centres_that_are_the_same_cost_nothing_and_have_a_finite_gradient():
    loss = made()
    with torch.no_grad():
        loss.weight.copy_(loss.weight[:, :1].expand(C, K, D))
        loss.weight[0] = 0
    x, y = batch()
    value = loss(x.requires_grad_(), y)
    value.backward()
    assert loss.weight.grad.isfinite().all()
    assert x.grad.isfinite().all()


def test_scores_have_no_margin():
    loss = made(margin=1.0)
    x, y = batch()
    expected = torch.nn.functional.cross_entropy(loss.scores(x), y)
    assert made(margin=0.0, tau=0.0)(x, y).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_second_derivative_is_refused():
    loss, (x, y) = made(), batch()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss(x.requires_grad_(), y), x, create_graph=True)


@pytest.mark.parametrize("centers", [0, 2.0, True])
def test_a_number_of_centres_that_is_none_is_refused(centers):
    with pytest.raises(ArgumentError, match="centers"):
        SoftTriple(C, D, centers=centers)
