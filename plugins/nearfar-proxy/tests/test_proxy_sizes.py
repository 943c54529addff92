"""Batches and proxies as many as are computed in blocks, in float32, against the same in float64."""

from __future__ import annotations

import pytest
import torch

from nearfar.nn.reducers import NoReduction
from nearfar_proxy import proxy_nca
from nearfar_proxy.proxy_anchor import ProxyAnchor
from nearfar_proxy.proxy_gml import ProxyGML
from nearfar_proxy.proxy_nca import ProxyNCA
from nearfar_proxy.proxy_nca_pp import ProxyNCAPlusPlus
from nearfar_proxy.soft_triple import SoftTriple

N, C, D = 192, 700, 64
LOSSES = {
    "proxy_nca": lambda **more: ProxyNCA(C, D, scale=9.0, **more),
    "all_proxies": lambda **more: ProxyNCA(C, D, denominator="all", **more),
    "steep_nca": lambda **more: ProxyNCA(C, D, scale=60.0, **more),
    "proxy_anchor": lambda **more: ProxyAnchor(C, D, **more),
    "steep_anchor": lambda **more: ProxyAnchor(C, D, scale=100.0, **more),
    "soft_triple": lambda **more: SoftTriple(C, D, centers=4, **more),
    "steep_soft_triple": lambda **more: SoftTriple(C, D, centers=4, gamma=0.002, **more),
    "proxy_gml": lambda **more: ProxyGML(C, D, proxies_per_class=2, ratio=1.0, **more),
}


def gradients(name, dtype, reducer, miner):
    """Values, and their gradients with a weight for each of them."""
    torch.manual_seed(4)
    loss = LOSSES[name](reducer=reducer)
    x, y = torch.randn(N, D), torch.randint(C, (N,))
    with torch.no_grad():
        loss.weight[3] = 0  # which has no direction
        loss.weight[5:9] *= torch.tensor([1e-3, 1e3, 1e-6, 1e6]).view(-1, *[1] * (loss.weight.ndim - 1))
    x, loss = x.to(dtype).requires_grad_(), loss.to(dtype)
    mined = (torch.arange(0, N, 2), torch.arange(1, N, 2), torch.arange(0, N, 2), torch.arange(1, N, 2))
    found = loss(x, y, mined if miner else None)
    values = torch.cat(list(found.values())) if isinstance(found, dict) else found.view(-1)
    weights = torch.linspace(0.5, 2, len(values), dtype=dtype) / len(values)
    by_x, by_weight = torch.autograd.grad((values * weights).sum(), (x, loss.weight))
    # By the direction of each proxy, as its length is anything from 1e-6 on.
    lengths = torch.linalg.vector_norm(loss.weight.detach(), dim=-1, keepdim=True)
    return values.detach(), by_x, by_weight * lengths


@pytest.mark.parametrize("miner", [False, True], ids=["all", "mined"])
@pytest.mark.parametrize("reducer", [None, NoReduction()], ids=["mean", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_those_of_float64(name, reducer, miner, monkeypatch):
    monkeypatch.setattr(proxy_nca, "MANY", 1)
    exact = gradients(name, torch.float64, reducer, miner)
    for what, found, expected in zip(
        ("value", "x", "weight"), gradients(name, torch.float32, reducer, miner), exact, strict=True
    ):
        # Steep logits multiply the rounding of a cosine, 1e-7, with as much as 500.
        tolerance = 1e-4 if name.startswith("steep") else 1e-5
        off = (found.double() - expected).abs().max() / expected.abs().max()
        assert off < tolerance, what


@pytest.mark.parametrize(
    ("make", "centers"),
    [
        (lambda c: ProxyNCA(c, 4), 1),
        (lambda c: ProxyNCA(c, 4, scale=60.0, denominator="all"), 1),
        (lambda c: ProxyNCAPlusPlus(c, 4), 1),
        (lambda c: ProxyAnchor(c, 4), 1),
        (lambda c: SoftTriple(c, 4, centers=4), 4),
    ],
    ids=["proxy_nca", "steep_nca", "proxy_nca_pp", "proxy_anchor", "soft_triple"],
)
def test_nothing_of_the_size_of_batch_by_proxies_is_held(make, centers):
    """On 256 samples and 8,000 classes: 8 MB for each centre a class has."""
    torch.manual_seed(3)
    loss, x = make(8000), torch.randn(256, 4, requires_grad=True)
    y = torch.randint(8000, (256,))
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        loss(x, y).backward()
    assert max(event.cpu_memory_usage for event in profile.function_events) < 256 * 8000 * centers * 4 / 4
