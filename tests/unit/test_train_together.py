"""Several optimisers as one: what becomes of copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.train.together import Together

Learned = tuple[list[Tensor], torch.optim.Optimizer]


def learned() -> Learned:
    parameters = [torch.arange(3.0, requires_grad=True), torch.ones(2, 2, requires_grad=True)]
    parts = [torch.optim.SGD(parameters[:1], lr=0.1, momentum=0.9), torch.optim.AdamW(parameters[1:], lr=0.01)]
    return parameters, Together(parts)


def stepped(found: Learned, *steps: int) -> list[Tensor]:
    parameters, optimizer = found
    for step in steps:
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, step)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
def test_a_copy_goes_on_as_the_original_would(copied: Callable[[Any], Any]) -> None:
    original = learned()
    stepped(original, 1, -2)
    before = [parameter.detach().clone() for parameter in original[0]]
    other = copied(original)
    # A schedule sets rates in the groups of the whole.
    for group in other[1].param_groups:
        group["lr"] *= 0.5
    moved = stepped(other, 3, 4)
    assert all(map(torch.equal, before, original[0]))
    assert [group["lr"] for group in original[1].param_groups] == [0.1, 0.01]
    for group in original[1].param_groups:
        group["lr"] *= 0.5
    assert all(map(torch.equal, moved, stepped(original, 3, 4)))


def test_a_copy_loads_what_the_original_has() -> None:
    original = learned()
    stepped(original, 1, -2)
    other = copy.deepcopy(learned())
    # torch keeps the tensors it is given.
    other[1].load_state_dict(copy.deepcopy(original[1].state_dict()))
    with torch.no_grad():
        for here, there in zip(other[0], original[0], strict=True):
            here.copy_(there)
    assert all(map(torch.equal, stepped(other, 3), stepped(original, 3)))
