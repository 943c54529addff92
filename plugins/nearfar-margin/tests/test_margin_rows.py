"""Optimisers that step on rows, against their formulas, row by row; and torch's, where all rows have a gradient."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict

from nearfar.errors import ArgumentError
from nearfar_margin.cosface import CosFace
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.row_optimizers import RowAdamW, RowSGD
from nearfar_margin.sampling import sample
from nearfar_margin.softmax import Softmax
from nearfar_margin.subcenter_arcface import SubcenterArcFace

C, D = 60, 4
OURS = {
    "sgd": lambda p: RowSGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "sgd without momentum": lambda p: RowSGD(p, lr=0.1, weight_decay=0.01),
    "nesterov": lambda p: RowSGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adamw": lambda p: RowAdamW(p, lr=0.1, betas=(0.8, 0.99), weight_decay=0.1),
}
THEIRS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "sgd without momentum": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.99), weight_decay=0.1),
}


class Reference:
    """One row, by the formulas of the papers."""

    def __init__(self, w):
        self.w, self.v, self.m, self.t = w.clone(), torch.zeros_like(w), torch.zeros_like(w), 0

    def sgd(self, g, momentum=0.9, decay=0.01, lr=0.1, nesterov=False):
        g = g + decay * self.w
        self.v = momentum * self.v + g
        self.w = self.w - lr * (g + momentum * self.v if nesterov else self.v)

    def adamw(self, g, lr=0.1, beta1=0.8, beta2=0.99, decay=0.1, eps=1e-8):
        self.t += 1
        self.m = beta1 * self.m + (1 - beta1) * g
        self.v = beta2 * self.v + (1 - beta2) * g**2
        m, v = self.m / (1 - beta1**self.t), self.v / (1 - beta2**self.t)
        self.w = self.w - lr * decay * self.w - lr * m / (v.sqrt() + eps)

    def step(self, name, g):
        if name == "adamw":
            self.adamw(g)
        else:
            self.sgd(g, momentum=0.0 if name == "sgd without momentum" else 0.9, nesterov=name == "nesterov")


def head(make=CosFace, rate=0.2, **kwargs):
    torch.manual_seed(1)
    loss = make(C, D, **kwargs).double()
    with torch.no_grad():
        loss.weight.normal_()
    return sample(loss, rate)


def batch(step=0):
    g = torch.Generator().manual_seed(step)
    return torch.randn(5, D, generator=g, dtype=torch.float64), torch.randint(C, (5,), generator=g)


@pytest.mark.parametrize("make", [CosFace, SubcenterArcFace])
@pytest.mark.parametrize("name", OURS)
def test_each_row_is_stepped_by_its_own_gradients_and_count(name, make):
    loss = head(make)
    optimizer = OURS[name]([loss.weight])
    rows, counts = [Reference(w) for w in loss.weight.detach()], torch.zeros(C)
    for step in range(6):
        optimizer.zero_grad()
        loss(*batch(step)).backward()
        gradient = loss.weight.grad.coalesce()
        drawn = gradient.indices()[0]
        counts[drawn] += 1
        for row, g in zip(drawn.tolist(), gradient.values(), strict=True):
            rows[row].step(name, g)
        others = torch.ones(C, dtype=torch.bool).index_fill_(0, drawn, False)
        before = [t[others].clone() for t in (loss.weight, *optimizer.state[loss.weight].values())]
        optimizer.step()
        after = [t[others] for t in (loss.weight, *optimizer.state[loss.weight].values())]
        assert others.any()
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=False))
        torch.testing.assert_close(loss.weight.detach(), torch.stack([r.w for r in rows]), rtol=1e-12, atol=1e-12)
    if name == "adamw":
        assert torch.equal(optimizer.state[loss.weight]["step"], counts.int())
        assert len(counts.unique()) > 2


@pytest.mark.parametrize("name", OURS)
def test_with_dense_gradients_they_are_torchs(name):
    torch.manual_seed(0)
    ours = nn.ParameterList([torch.randn(5, 3), torch.randn(7), torch.tensor(2.0), torch.randn(2, 3, 4)]).double()
    theirs = copy.deepcopy(ours)
    optimizers = OURS[name](ours.parameters()), THEIRS[name](theirs.parameters())
    for _ in range(5):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            sum((p**3 - p).sum() for p in parameters).backward()
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_a_bias_is_stepped_by_rows_too():
    loss = head(Softmax)
    before = loss.bias.detach().clone()
    optimizer = RowSGD(loss.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    loss(*batch()).backward()
    drawn = loss.weight.grad.coalesce().indices()[0]
    optimizer.step()
    assert set((loss.bias != before).nonzero().flatten().tolist()) == set(drawn.tolist())


@pytest.mark.parametrize("name", OURS)
def test_a_run_that_is_resumed_goes_on_as_if_nothing_had_been(name):
    def run(loss, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            loss(*batch(step)).backward()
            optimizer.step()

    through = head()
    run(through, OURS[name](through.parameters()), range(6))
    first = head()
    optimizer = OURS[name](first.parameters())
    run(first, optimizer, range(3))
    saved = copy.deepcopy((first.state_dict(), optimizer.state_dict()))
    second = head()
    optimizer = OURS[name](second.parameters())
    second.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    run(second, optimizer, range(3, 6))
    assert torch.equal(second.weight, through.weight)


@pytest.mark.parametrize("name", OURS)
def test_to_ask_a_fresh_one_for_its_state_changes_nothing(name):
    """torch.distributed.checkpoint steps it once, on gradients of 0, with a learning rate of 0."""
    asked, other = head(), head()
    optimizers = OURS[name](asked.parameters()), OURS[name](other.parameters())
    _, state = get_state_dict(asked, optimizers[0])
    kept = list(state["state"].get("weight", {}).values())
    assert len(kept) == {"sgd": 1, "sgd without momentum": 0, "nesterov": 1, "adamw": 3}[name]
    assert not any(tensor.any() for tensor in kept)
    assert torch.equal(asked.weight, other.weight)
    for step in range(3):
        for loss, optimizer in zip((asked, other), optimizers, strict=True):
            optimizer.zero_grad()
            loss(*batch(step)).backward()
            optimizer.step()
    assert torch.equal(asked.weight, other.weight)


def test_schedulers_closures_and_groups_do_as_with_any_optimiser():
    loss = head(NormSoftmax, learn_scale=True, scale=6.0)
    groups = [{"params": [loss.weight], "lr": 0.5}, {"params": [loss.scale]}]
    optimizer = RowSGD(groups, lr=0.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    before, scale = loss.weight.detach().clone(), loss.scale.item()

    def closure():
        optimizer.zero_grad()
        value = loss(*batch())
        value.backward()
        return value

    assert optimizer.step(closure) > 0
    gradient = loss.weight.grad.to_dense()
    torch.testing.assert_close(loss.weight.detach(), before - 0.5 * gradient, rtol=1e-12, atol=1e-12)
    assert loss.scale.item() == scale
    scheduler.step()
    assert math.isclose(optimizer.param_groups[0]["lr"], 0.05)


def test_a_loss_scaler_scales_back_and_leaves_out_steps_that_overflow():
    x, y = batch()
    plain, scaled = head().float(), head().float()
    optimizer = RowSGD([plain.weight], lr=0.1, momentum=0.9)
    plain(x.float(), y).backward()
    optimizer.step()
    optimizer = RowSGD([scaled.weight], lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(scaled(x.float(), y)).backward()
    scaler.step(optimizer)
    scaler.update()
    torch.testing.assert_close(scaled.weight, plain.weight)
    before = scaled.weight.detach().clone()
    optimizer.zero_grad()
    (scaler.scale(scaled(x.float(), y)) * math.inf).backward()
    scaler.step(optimizer)
    assert torch.equal(scaled.weight, before)


def test_clipping_sees_the_rows():
    loss = head()
    loss(*batch()).backward()
    norm = torch.linalg.vector_norm(loss.weight.grad.to_dense())
    assert torch.isclose(nn.utils.clip_grad_norm_(loss.parameters(), norm.item() / 2), norm)
    assert torch.isclose(torch.linalg.vector_norm(loss.weight.grad.to_dense()), norm / 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.1),
    ],
)
def test_an_optimiser_that_would_move_other_rows_is_refused(make):
    loss = head()
    optimizer = make(loss.parameters())
    loss(*batch()).backward()
    before = loss.weight.detach().clone()
    with pytest.raises(ArgumentError, match=r"gradient of the rows that were drawn alone.*RowSGD or RowAdamW"):
        optimizer.step()
    assert torch.equal(loss.weight, before)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.SparseAdam, torch.optim.Adagrad])
def test_those_that_move_drawn_rows_only_are_not(make):
    loss = head(scale=4.0)  # so that no share of a class is lost to rounding
    optimizer = make(list(loss.parameters()), lr=0.1)
    before = loss.weight.detach().clone()
    loss(*batch()).backward()
    drawn = loss.weight.grad.coalesce().indices()[0]
    with torch.sparse.check_sparse_tensor_invariants():  # which Adagrad does not say whether it wants
        optimizer.step()
    moved = (loss.weight != before).any(1).nonzero().squeeze(1)
    assert torch.equal(moved, drawn)


def test_sparse_gradients_of_others_are_left_to_their_optimisers():
    sample(CosFace(C, D), 0.5)
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1, momentum=0.9)
    table(torch.tensor([1])).sum().backward()
    before = table.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(table.weight, before)


def test_wrong_numbers_are_told():
    weight = [nn.Parameter(torch.zeros(2, 2))]
    with pytest.raises(ArgumentError, match="momentum must not be negative"):
        RowSGD(weight, lr=0.1, momentum=-1)
    with pytest.raises(ArgumentError, match=r"betas lie in \[0, 1\)"):
        RowAdamW(weight, betas=(0.9, 1.0))
    weight[0].grad = torch.eye(2).to_sparse()
    with pytest.raises(ArgumentError, match="1 sparse dimension; got 2 of 2"):
        RowSGD(weight, lr=0.1).step()
