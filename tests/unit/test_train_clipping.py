"""Clipping has one norm: that of all gradients, on whatever rank they are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nearfar.train.clipping import clip


def parts(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with gradients of norm 0.1 to 10 in two groups, and a parameter without."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)).to(dtype)
    for number, parameter in enumerate(model[:2].parameters()):
        parameter.grad = torch.randn_like(parameter) * 10.0 ** (number - 2)
    groups = [{"params": model[0].parameters()}, {"params": model[1:].parameters()}]
    return model, torch.optim.SGD(groups, lr=1.0)


@pytest.mark.parametrize("limit", [0.01, 1.0, 100.0])
def test_in_one_process_it_is_that_of_torch(limit: float) -> None:
    model, optimizer = parts()
    theirs = copy.deepcopy(model)
    for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
        other.grad = None if mine.grad is None else mine.grad.clone()
    norm = nn.utils.clip_grad_norm_(theirs.parameters(), limit)
    torch.testing.assert_close(clip(optimizer, limit), norm)
    for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_gradients_below_the_limit_keep_their_bits() -> None:
    model, optimizer = parts()
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    norm = clip(optimizer, 1e3)
    assert norm > 1
    assert all(g is None or torch.equal(g, p.grad) for g, p in zip(before, model.parameters(), strict=True))


def test_a_row_that_is_listed_twice_counts_as_the_sum() -> None:
    weight = nn.Parameter(torch.zeros(5, 2))
    rows = torch.tensor([[1, 3, 1]])
    values = torch.tensor([[1.0, 0.0], [0.0, 3.0], [3.0, 0.0]])
    weight.grad = torch.sparse_coo_tensor(rows, values, (5, 2), check_invariants=True)
    assert clip(torch.optim.SparseAdam([weight]), 2.5).item() == pytest.approx(5.0)
    torch.testing.assert_close(weight.grad.to_dense().norm().item(), 2.5, rtol=1e-6, atol=0)


def test_the_norm_of_half_precision_is_in_float32() -> None:
    weight = nn.Parameter(torch.zeros(2, dtype=torch.float16))
    weight.grad = torch.full((2,), 3e4, dtype=torch.float16)
    norm = clip(torch.optim.SGD([weight], lr=1.0), 10.0)
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(3e4 * 2**0.5, rel=1e-3)
    assert weight.grad.float().norm().item() == pytest.approx(10.0, rel=1e-3)


def test_without_gradients_there_is_nothing_to_clip() -> None:
    assert clip(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0), 1.0) == 0
