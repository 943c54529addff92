"""Logarithms of summed exponentials of inner products, a tile at a time, against torch's on the whole matrix."""

from __future__ import annotations

import pytest
import torch

from nearfar_proxy import blocks
from nearfar_proxy.log_sums import log_sum_exp


def vectors(m, c, scale=1.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(6)
    drawn = torch.randn(m + c, 5, generator=g, dtype=torch.float64) * scale
    rows, columns = drawn.to(dtype).split((m, c))
    return rows.clone().requires_grad_(), columns.clone().requires_grad_()


@pytest.mark.parametrize("held", [10**6, 30], ids=["one_tile", "tiles"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_values_and_gradients_are_those_of_the_whole_matrix(held, scale, monkeypatch):
    """Also where no exponential is a float64: of inner products of thousands."""
    monkeypatch.setitem(blocks._HELD, "cpu", held)
    rows, columns = vectors(13, 12, scale)
    expected = (rows @ columns.T).logsumexp(1)
    weights = torch.linspace(-1, 2, 13, dtype=torch.float64)
    by = torch.autograd.grad((expected * weights).sum(), (rows, columns))
    found = log_sum_exp(rows, columns)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    for a, b in zip(torch.autograd.grad((found * weights).sum(), (rows, columns)), by, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_of_no_rows_the_columns_have_a_gradient_of_zero():
    """As a rank without classes needs it, which takes part in what the ranks add up on the way back."""
    rows, columns = vectors(0, 4)
    log_sum_exp(rows, columns).sum().backward()
    assert columns.grad.shape == columns.shape
    assert not columns.grad.any()


def test_nothing_of_the_size_of_rows_by_columns_is_held():
    """Of 3,000 by 3,000 products were 36 MB; a tile is 1."""
    rows, columns = vectors(3000, 3000, dtype=torch.float32)
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        log_sum_exp(rows, columns).sum().backward()
    assert max(event.cpu_memory_usage for event in profile.function_events) < 3000 * 3000 * 4 / 8
