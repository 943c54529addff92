"""A margin loss is a short declaration: two published ones in a few lines, against loops over plain numbers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import MarginSoftmax

C, D, S = 6, 4, 8.0


class HardNegatives(MarginSoftmax):
    """MV-Softmax (1912.00833): a negative above the target's ψ counts as h·c + h − 1."""

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return t - 0.35

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        return torch.where(c > self.target(rows.t, rows)[:, None], 1.2 * c + 0.2, c)


@dataclasses.dataclass(frozen=True, slots=True)
class WithMargin(Rows):
    margin: Tensor


class ByNorm(MarginSoftmax):
    """A margin that grows with the length of the embedding, beside its running mean: state and rows of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("mean", torch.tensor(0.0, dtype=torch.float64))

    def prepare(self, rows: Rows) -> Rows:
        self.mean.lerp_(rows.norm.detach().mean(), 0.5)
        return WithMargin(rows.t, rows.norm, rows.labels, margin=0.1 * rows.norm)

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return t - rows.margin


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(5)
    return torch.randn(8, D, generator=g, dtype=torch.float64), torch.randint(C, (8,), generator=g)


def cosines(x, w):
    def one(a, b):
        return sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    return [[one(a, b) for b in w.tolist()] for a in x.tolist()]


def cross_entropy(z, y):
    return sum(math.log(sum(math.exp(v) for v in row)) - row[j] for row, j in zip(z, y, strict=True)) / len(y)


def test_others_may_depend_on_the_target(data):
    x, y = data
    loss = HardNegatives(C, D, scale=S).double()
    z, hard = [], 0
    for row, j in zip(cosines(x, loss.weight.detach()), y.tolist(), strict=True):
        psi = row[j] - 0.35
        hard += sum(c > psi for k, c in enumerate(row) if k != j)
        z.append([S * (psi if k == j else 1.2 * c + 0.2 if c > psi else c) for k, c in enumerate(row)])
    assert 0 < hard < 8 * (C - 1)
    assert loss(x, y).item() == pytest.approx(cross_entropy(z, y.tolist()), rel=1e-12)
    assert torch.autograd.gradcheck(lambda v: loss(v, y), (x.requires_grad_(),))


def test_rows_may_carry_more_and_are_differentiated(data):
    x, y = data
    loss = ByNorm(C, D, scale=S).double()
    z = [
        [S * (c - 0.1 * math.hypot(*v) * (k == j)) for k, c in enumerate(row)]
        for v, row, j in zip(x.tolist(), cosines(x, loss.weight.detach()), y.tolist(), strict=True)
    ]
    assert loss(x, y).item() == pytest.approx(cross_entropy(z, y.tolist()), rel=1e-12)
    assert torch.autograd.gradcheck(lambda v: loss(v, y), (x.requires_grad_(),))


def test_a_batch_is_prepared_once(data):
    x, y = data
    loss = ByNorm(C, D, scale=S).double()
    loss(x, y)
    assert loss.mean.item() == pytest.approx(sum(math.hypot(*v) for v in x.tolist()) / 8 / 2, rel=1e-12)


def test_detached_holds_for_the_others_too(data):
    """SphereFace-R's gradient: that of the cosines, at the value of the margins."""
    x, y = data
    loss = HardNegatives(C, D, scale=S).double()
    loss.detached = True
    w = loss.weight.detach()
    values = []
    for row, j in zip(cosines(x, w), y.tolist(), strict=True):
        psi = row[j] - 0.35
        values.append([psi if k == j else 1.2 * c + 0.2 if c > psi else c for k, c in enumerate(row)])
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    c = torch.cosine_similarity(x1[:, None], w[None], dim=2)
    shift = torch.tensor(values, dtype=torch.float64) - c.detach()
    expected = torch.nn.functional.cross_entropy(S * (c + shift), y)
    found = loss(x2, y)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    expected.backward()
    found.backward()
    torch.testing.assert_close(x2.grad, x1.grad, rtol=1e-10, atol=1e-13)
