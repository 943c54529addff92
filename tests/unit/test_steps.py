"""Parts that move on once a step: with calls, or with the optimiser they follow."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from nearfar.nn import Criterion, EmbeddingLoss, Stepping, element_terms
from nearfar.nn.criterion import CriterionTerm
from nearfar.nn.steps import follow


class Counting(EmbeddingLoss, Stepping):
    """The embeddings times a parameter; counts its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def terms(self, batch):
        self.called()
        return element_terms(self.scale * batch.embeddings.sum(1))

    def step(self) -> None:
        self.steps += 1


@pytest.fixture
def loss() -> Counting:
    return Counting()


def call(module: torch.nn.Module) -> None:
    module(torch.ones(2, 3), torch.tensor([0, 1])).backward()


def test_calls_in_training_are_steps(loss):
    call(loss)
    call(loss)
    loss.eval()
    call(loss)
    assert loss.steps == 2


def test_calls_whose_gradients_accumulate_are_one_step(loss):
    criterion = Criterion([CriterionTerm("it", loss, ("embeddings", "labels"))])
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.1)
    criterion.follow(optimizer)
    call(criterion)
    call(criterion)
    assert loss.steps == 0
    optimizer.step()
    assert loss.steps == 1


def test_the_optimiser_told_last_is_followed(loss):
    criterion = Criterion([CriterionTerm("it", loss, ("embeddings", "labels"))])
    first, second = (torch.optim.SGD(criterion.parameters(), lr=0.1) for _ in range(2))
    criterion.follow(first)
    criterion.follow(second)
    criterion.follow(second)
    call(criterion)
    first.step()
    assert loss.steps == 0
    second.step()
    assert loss.steps == 1


def test_a_copy_is_moved_by_no_optimiser_of_the_original(loss):
    criterion = Criterion([CriterionTerm("it", loss, ("embeddings", "labels"))])
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.1)
    criterion.follow(optimizer)
    other = copy.deepcopy(loss)
    call(loss)
    optimizer.step()
    assert (loss.steps, other.steps) == (1, 0)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))], ids=["deepcopy", "pickle"]
)
def test_the_calls_of_a_copy_are_its_steps(loss, copied):
    follow(loss, torch.optim.SGD(loss.parameters(), lr=0.1))
    other = copied(loss)
    call(other)
    assert (loss.steps, other.steps) == (0, 1)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_loss_scaler_skips_is_none(loss, fused):
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1, fused=fused)
    Criterion([CriterionTerm("it", loss, ("embeddings", "labels"))]).follow(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(factor * loss(torch.ones(2, 3), torch.tensor([0, 1]))).backward()
        scaler.step(optimizer)
        scaler.update()
    assert loss.steps == 1
