"""Unit vectors: their definition, their derivatives, and their edges."""

from __future__ import annotations

import pytest
import torch

from nearfar.nn.vectors import unit


def test_vectors_are_scaled_to_length_one_and_lengths_are_returned():
    x = torch.randn(5, 3, dtype=torch.float64)
    units, lengths = unit(x)
    torch.testing.assert_close(lengths, x.square().sum(1).sqrt())
    torch.testing.assert_close(units * lengths[:, None], x)


@pytest.mark.parametrize("dim", [0, 1])
def test_first_and_second_derivatives_are_right(dim):
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: unit(v, dim), (x,))
    assert torch.autograd.gradgradcheck(lambda v: unit(v, dim), (x,))


def test_a_zero_vector_stays_zero_and_passes_nothing_also_to_the_second_derivative():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    units, lengths = unit(x)
    assert units.tolist() == [[0.0, 0.0], [0.6, 0.8]]
    assert lengths.tolist() == [0.0, 5.0]
    (first,) = torch.autograd.grad((units.square().sum(1) + units[:, 0]).sum(), x, create_graph=True)
    assert first[0].tolist() == [0.0, 0.0]
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert second.isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e-10, 1e18, 1e19, 1e30, 1e38])
def test_sizes_neither_overflow_nor_underflow_on_the_way(scale):
    x = torch.tensor([[3.0, -4.0], [1.0, 0.0]])
    units, _ = unit(x / 5 * scale)
    expected = torch.tensor([[0.6, -0.8], [1.0, 0.0]]) if scale > 1e-11 else torch.zeros(2, 2)
    torch.testing.assert_close(units, expected)


def test_what_is_not_finite_shows():
    assert unit(torch.tensor([[torch.nan, 1.0]]))[0].isnan().any()
    assert unit(torch.tensor([[torch.inf, 1.0]]))[0].isnan().any()


def test_vectors_without_components_have_length_zero():
    units, lengths = unit(torch.empty(3, 0))
    assert units.shape == (3, 0)
    assert lengths.tolist() == [0.0, 0.0, 0.0]
