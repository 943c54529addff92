"""The loss scaler of ranks: what it finds on one holds for all, and gradients of ranks go beside whole ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import nearfar
from nearfar.nn import Criterion
from nearfar.testing import run_on_ranks
from nearfar.train.sampled import sample_classes
from nearfar.train.scaler import RanksScaler
from nearfar.train.shards import shard_classes


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=(tmp_path / "meet").as_uri(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(rate: float) -> tuple[nn.Module, Criterion, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model, criterion = nn.Linear(3, 4), nearfar.compose("arcface", num_classes=40, embedding_size=4)
    shard_classes(criterion, torch.device("cpu"))
    if rate < 1:
        sample_classes(criterion, rate, seed=0)
    return model, criterion, torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1)


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_gradients_of_ranks_and_whole_ones_are_unscaled(group: None, rate: float) -> None:
    model, criterion, optimizer = sharded(rate)
    images, labels = torch.randn(6, 3), torch.arange(6)
    criterion(model(images), labels).backward()
    expected = [torch.as_tensor(held(p.grad)).clone() for p in (*model.parameters(), *criterion.parameters())]
    optimizer.zero_grad()
    if rate < 1:
        criterion.losses["arcface"].sampler.steps.zero_()
    scaler = RanksScaler("cpu", init_scale=8.0)
    scaler.scale(criterion(model(images), labels)).backward()
    scaler.unscale_(optimizer)
    for parameter, value in zip((*model.parameters(), *criterion.parameters()), expected, strict=True):
        torch.testing.assert_close(held(parameter.grad), value)


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("where", ["model", "head"])
def test_an_overflow_anywhere_skips_the_step(group: None, rate: float, where: str) -> None:
    model, criterion, optimizer = sharded(rate)
    before = [held(p.detach()).clone() for p in (*model.parameters(), *criterion.parameters())]
    scaler = RanksScaler("cpu", init_scale=8.0)
    scaler.scale(criterion(model(torch.randn(6, 3)), torch.arange(6))).backward()
    gradient = (model.weight if where == "model" else criterion.losses["arcface"].weight).grad
    (gradient._values() if gradient.is_sparse else held(gradient)).view(-1)[0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0
    for parameter, value in zip((*model.parameters(), *criterion.parameters()), before, strict=True):
        assert torch.equal(held(parameter.detach()), value)


def test_an_overflow_on_another_rank_skips_the_step_here(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    def another_has_one(found: torch.Tensor, operation: object) -> None:
        assert operation == dist.ReduceOp.MAX
        found.fill_(1.0)
        told.set()

    monkeypatch.setattr(dist, "all_reduce", another_has_one)
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    scaler = RanksScaler("cpu", init_scale=8.0)
    scaler.scale(model(torch.randn(2, 3)).sum()).backward()
    scaler.step(torch.optim.SGD(model.parameters(), lr=0.1))
    scaler.update()
    assert told.is_set()
    assert torch.equal(model.weight, before)
    assert scaler.get_scale() == 4.0


def one_overflows(rank: int, world: int) -> None:
    """On the last of the ranks, in rows of the head that it alone has; then a step in which nothing does."""
    model, criterion, optimizer = sharded(1.0)
    parameters = [*model.parameters(), *criterion.parameters()]
    scaler = RanksScaler("cpu", init_scale=8.0)
    for overflow in (True, False):
        before = [held(p.detach()).clone() for p in parameters]
        optimizer.zero_grad()
        scaler.scale(criterion(model(torch.randn(6, 3)), torch.arange(34, 40))).backward()
        if overflow and rank == world - 1:
            criterion.losses["arcface"].weight.grad.to_local()[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 4.0
        stayed = [torch.equal(held(p.detach()), value) for p, value in zip(parameters, before, strict=True)]
        assert all(stayed) if overflow else not any(stayed)


def test_an_overflow_on_one_of_two_ranks_skips_the_step_on_both() -> None:
    run_on_ranks(one_overflows, 2)


def held(tensor: torch.Tensor | None) -> torch.Tensor:
    """What this rank has of it, dense."""
    assert tensor is not None
    here = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return here.to_dense() if here.is_sparse else here
