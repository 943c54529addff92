"""Losses whose class weights cost something too, and ProxyGML, whose proxies do."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import ArgumentError
from nearfar.nn.reducers import NoReduction
from nearfar_proxy import blocks, proxy_gml
from nearfar_proxy.center_invariant import CenterInvariant
from nearfar_proxy.contrastive_center import ContrastiveCenter
from nearfar_proxy.proxy_gml import ProxyGML
from nearfar_proxy.proxy_nca import ProxyNCA
from nearfar_proxy.regular_face import RegularFace

C, D = 5, 4


def batch(n=7, seed=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=g, dtype=torch.float64), torch.randint(C, (n,), generator=g)


def proxies():
    torch.manual_seed(8)
    return ProxyNCA(C, D)


def cosine(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def regular_face(w):
    return [max(cosine(a, b) for k, b in enumerate(w) if k != j) for j, a in enumerate(w)]


def center_invariant(w):
    squares = [sum(p * p for p in a) for a in w]
    mean = math.fsum(squares) / len(w)
    return [(s - mean) ** 2 / 4 for s in squares]


CASES = [(RegularFace, regular_face), (CenterInvariant, center_invariant)]


@pytest.mark.parametrize(("cls", "formula"), CASES)
def test_the_loss_comes_with_a_multiple_of_the_mean_cost_of_its_weights(cls, formula):
    loss = cls(proxies(), 0.7).double()
    x, y = batch()
    costs = formula(loss.loss.weight.tolist())
    expected = loss.loss(x, y).item() + 0.7 * math.fsum(costs) / C
    assert loss(x, y).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("cls", "formula"), CASES)
def test_gradients_are_those_of_finite_differences(cls, formula):
    loss = cls(proxies(), 0.7).double()
    x, y = batch()

    def value(x, weight):
        return torch.func.functional_call(loss, {"loss.weight": weight}, (x, y))

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), loss.loss.weight.detach().clone().requires_grad_()))


@pytest.mark.parametrize(("cls", "formula"), CASES)
def test_of_nothing_selected_the_weights_cost_nothing(cls, formula):
    x, y = batch()
    assert cls(proxies()).double()(x, y, (torch.zeros(0, dtype=torch.long),) * 3).item() == 0


@pytest.mark.parametrize(("cls", "formula"), CASES)
def test_a_loss_without_class_weights_is_refused(cls, formula):
    with pytest.raises(ArgumentError, match="ContrastiveCenter has none"):
        cls(ContrastiveCenter(C, D))


def test_nearest_classes_are_the_same_in_blocks(monkeypatch):
    loss, (x, y) = RegularFace(proxies()).double(), batch()
    expected = loss(x, y)
    monkeypatch.setitem(blocks._HELD, "cpu", 10)
    torch.testing.assert_close(loss(x, y), expected, rtol=0, atol=0)


def test_a_single_class_is_near_to_none():
    loss = RegularFace(ProxyNCA(1, D, denominator="all"), 2.0).double()
    assert loss(batch()[0], torch.zeros(7, dtype=torch.long)).item() == 0


# ---- ProxyGML


def graph(loss, x, y):
    """Values of the samples, and of the proxies, by the paper's steps."""
    k = loss.proxies_per_class
    w = loss.weight.flatten(0, 1).tolist()
    kept = math.ceil(loss.ratio * len(w))
    samples = []
    for a, label in zip(x.tolist(), y.tolist(), strict=True):
        own = list(range(label * k, label * k + k))
        others = sorted((p for p in range(len(w)) if p not in own), key=lambda p: -cosine(a, w[p]))
        sums = {}
        for p in own + others[: kept - k]:
            sums[p // k] = sums.get(p // k, 0.0) + cosine(a, w[p])
        exps = {j: math.exp(loss.scale * z) for j, z in sums.items()}
        samples.append(-math.log(exps[label] / math.fsum(exps.values())))
    regularizer = []
    for p, a in enumerate(w):
        sums = [math.fsum(cosine(a, w[q]) for q in range(j * k, j * k + k)) for j in range(C)]
        regularizer.append(-math.log(math.exp(sums[p // k]) / math.fsum(map(math.exp, sums))))
    return samples, [loss.factor * value for value in regularizer]


def gml(**arguments):
    torch.manual_seed(4)
    return ProxyGML(C, D, **{"proxies_per_class": 3, "ratio": 0.5, **arguments}).double()


@pytest.mark.parametrize("arguments", [{}, {"proxies_per_class": 1, "scale": 20.0}, {"ratio": 1.0, "factor": 2.0}])
def test_a_sample_is_classified_by_the_proxies_near_to_it(arguments):
    loss = gml(**arguments, reducer=NoReduction())
    x, y = batch()
    samples, regularizer = graph(loss, x, y)
    found = loss(x, y)
    assert found["loss"].tolist() == pytest.approx(samples, rel=1e-11)
    assert found["regularizer"].tolist() == pytest.approx(regularizer, rel=1e-11)


def test_gml_gradients_are_those_of_finite_differences():
    loss = gml()
    x, y = batch()

    def value(x, weight):
        return torch.func.functional_call(loss, {"weight": weight}, (x, y))

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), loss.weight.detach().clone().requires_grad_()))


def test_proxies_that_cost_nothing_are_not_classified(monkeypatch):
    (x, y), loss = batch(), gml(factor=0.0, reducer=NoReduction())
    expected = loss(x, y)["loss"]
    assert expected.tolist() == pytest.approx(graph(loss, x, y)[0], rel=1e-11)
    monkeypatch.setattr(proxy_gml, "log_sum_exp", None)
    found = loss(x.requires_grad_(), y)
    assert torch.equal(found["loss"], expected)
    assert found["regularizer"].tolist() == [0.0] * 3 * C
    (found["loss"].sum() + found["regularizer"].sum()).backward()
    assert loss.weight.grad.any()


def test_gml_is_the_same_in_blocks(monkeypatch):
    loss, (x, y) = gml(), batch()
    expected = loss(x, y)
    monkeypatch.setitem(blocks._HELD, "cpu", 10)
    torch.testing.assert_close(loss(x, y), expected, rtol=1e-14, atol=0)


def test_a_ratio_with_room_for_the_own_proxies_only_is_refused():
    with pytest.raises(ArgumentError, match=r"keeps 4 of 72 proxies, and a class has 12.*more than 0\.167"):
        ProxyGML(6, D)
