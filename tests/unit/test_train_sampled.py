"""What a run that takes a share of its classes is made of: the terms that are sampled, and optimisers as one."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import nearfar
from nearfar.errors import ConfigError
from nearfar.nn import Criterion
from nearfar.train.config import Config, Optimizer
from nearfar.train.job import prepare
from nearfar.train.optimizer import make_optimizer, parameter_groups
from nearfar.train.progress import Narrator
from nearfar.train.ranks import Ranks
from nearfar.train.sampled import row_optimizers, sample_classes
from nearfar.train.together import Together

CLASSES, DIM = 40, 4


def made(recipe: str = "arcface + 0.5 * triplet", rate: float = 0.2) -> tuple[nn.Module, Criterion]:
    torch.manual_seed(0)
    criterion = nearfar.compose(recipe, num_classes=CLASSES, embedding_size=DIM)
    if rate < 1:
        sample_classes(criterion, rate, seed=3)
    return nn.Linear(3, DIM), criterion


def optimizer_of(model: nn.Module, criterion: Criterion, name: str) -> torch.optim.Optimizer:
    config = Optimizer.model_validate({"name": name, "lr": 0.01})
    return make_optimizer(parameter_groups(model, criterion, config), config, row_optimizers(criterion))


def steps(model: nn.Module, criterion: Criterion, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        images, labels = torch.randn(8, 3, generator=generator), torch.arange(8) // 2 + number
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()


def everything(model: nn.Module, criterion: Criterion, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found = {**model.state_dict(), **criterion.state_dict()}
    for number, state in optimizer.state_dict()["state"].items():
        found |= {f"{number}.{name}": value for name, value in state.items()}
    return found


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_classes_that_are_not_drawn_stay_where_they_are(name: str) -> None:
    model, criterion = made()
    weight = criterion.losses["arcface"].weight
    before, network = weight.detach().clone(), model.weight.detach().clone()
    steps(model, criterion, optimizer_of(model, criterion, name), range(1))
    moved = (weight != before).any(1)
    assert moved[:4].all()
    assert 4 < moved.sum() < CLASSES / 2
    assert not torch.equal(model.weight, network)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_network_is_stepped_as_ever(name: str) -> None:
    # All classes are drawn, so that the sampled run and the ordinary one are to agree in every number.
    runs = []
    for rate in (1.0, 1 - 1e-12):
        parts = made("arcface", rate)
        optimizer = optimizer_of(*parts, name)
        assert isinstance(optimizer, Together) == (rate < 1)
        steps(*parts, optimizer, range(4))
        runs.append((*parts, optimizer))
    for ordinary, sampled in zip(runs[0][0].parameters(), runs[1][0].parameters(), strict=True):
        torch.testing.assert_close(sampled, ordinary, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(runs[1][1].losses["arcface"].weight, runs[0][1].losses["arcface"].weight)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimisers_together_go_on_to_the_bit(name: str) -> None:
    through = made("arcface + softmax")
    through_optimizer = optimizer_of(*through, name)
    first = made("arcface + softmax")
    first_optimizer = optimizer_of(*first, name)
    steps(*through, through_optimizer, range(6))
    steps(*first, first_optimizer, range(3))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in (*first, first_optimizer)], file)
    file.seek(0)
    second = made("arcface + softmax")
    second_optimizer = optimizer_of(*second, name)
    for part, state in zip((*second, second_optimizer), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    steps(*second, second_optimizer, range(3, 6))
    expected, found = everything(*through, through_optimizer), everything(*second, second_optimizer)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_learning_rate_that_is_set_is_that_of_the_optimiser_that_steps() -> None:
    model, criterion = made()
    optimizer = optimizer_of(model, criterion, "sgd")
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = copy.deepcopy((model.state_dict(), criterion.losses.state_dict()))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    steps(model, criterion, optimizer, range(1))
    assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
    assert torch.equal(criterion.losses["arcface"].weight, before[1]["arcface.weight"])


def test_each_term_draws_classes_of_its_own() -> None:
    _, criterion = made("arcface + cosface")
    assert criterion.losses["arcface"].sampler.seed != criterion.losses["cosface"].sampler.seed


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("arcface + proxy_anchor", r"class vectors of every term, and proxy_anchor always takes all of them"),
        ("triplet", r"a share of the class vectors, and triplet has none"),
    ],
)
def test_what_has_no_classes_to_draw_is_refused(recipe: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made(recipe)


def test_a_whole_head_on_each_of_several_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "join", classmethod(lambda cls, devices, *, cuda: cls(0, devices)))
    config = Config.of({"devices": 2, "criterion": "arcface", "head": {"sample_rate": 0.1}})
    with pytest.raises(ConfigError, match=r"sample_rate is 0\.1 on 2 devices.*: set head\.shard to true"):
        prepare(config, None, Narrator(quiet=True))


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_a_share_is_above_0_and_at_most_1(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"head\.sample_rate is .*, but must be (above 0|at most 1)"):
        Config.of({"head": {"sample_rate": rate}})
