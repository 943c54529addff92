"""The k-th greatest of each row, found by bits, against sorting; and a loss that needs it."""

from __future__ import annotations

import pytest
import torch

from nearfar_proxy import blocks, nearest
from nearfar_proxy.proxy_gml import ProxyGML
from nearfar_proxy.selecting import kth_greatest

ROWS, COLUMNS = 8, 600


def numbers(dtype):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(ROWS, COLUMNS, generator=g, dtype=torch.float64).to(dtype)
    x[0] = 0.5  # all the same
    x[1, ::2] = -x[1, 1::2]
    x[2] = x[2].round()  # many the same, zeros of either sign among them
    x[3] *= torch.finfo(dtype).tiny  # subnormal ones
    x[4, :3] = torch.tensor([-torch.inf, torch.inf, -torch.inf])
    x[5] = 1 + x[5] * 4 * torch.finfo(dtype).eps  # that differ in the last bits
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 2, 77, COLUMNS - 1, COLUMNS])
@pytest.mark.parametrize("width", [37, COLUMNS])
def test_it_is_what_sorting_finds(dtype, k, width):
    x = numbers(dtype)
    found = kth_greatest(lambda: iter(x.split(width, 1)), ROWS, k, x, None)
    assert torch.equal(found, x.sort(1, descending=True).values[:, k - 1])


@pytest.mark.parametrize("ratio", [0.2, 0.6])
def test_a_loss_that_keeps_more_than_a_block_has_the_same_value_and_gradient(ratio, monkeypatch):
    torch.manual_seed(3)
    loss = ProxyGML(40, 6, proxies_per_class=3, ratio=ratio)
    x, y = torch.randn(12, 6), torch.randint(40, (12,))

    def found(held):
        monkeypatch.setitem(blocks._HELD, "cpu", held)
        calls = []
        monkeypatch.setattr(nearest, "kth_greatest", lambda *given: calls.append(1) or kth_greatest(*given))
        leaf = x.clone().requires_grad_()
        value = loss(leaf, y)
        return bool(calls), value.detach(), *torch.autograd.grad(value, (leaf, loss.weight))

    few, many = found(10**6), found(100)
    assert (few[0], many[0]) == (False, True)
    for a, b in zip(few[1:], many[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_nothing_of_the_size_of_batch_by_proxies_is_held():
    """Of 64 samples and 20,000 proxies all cosines were 5 MB, and the half of them that is kept 2.5."""
    torch.manual_seed(3)
    x = torch.nn.functional.normalize(torch.randn(64, 4)).requires_grad_()
    weight = torch.randn(10_000, 2, 4, requires_grad=True)
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        nearest.nearest_cross_entropy(x, weight, torch.arange(64), 1.0, 10_000).sum().backward()
    assert max(event.cpu_memory_usage for event in profile.function_events) < 64 * 20_000 * 4 / 2
