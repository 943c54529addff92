"""What a run whose backward pass steps the class vectors is made of, and what it cannot be combined with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nearfar
from nearfar.errors import ConfigError
from nearfar.train.config import Config, Optimizer
from nearfar.train.fused import check_fused, fused_optimizers
from nearfar.train.job import prepare
from nearfar.train.optimizer import make_optimizer, parameter_groups
from nearfar.train.progress import Narrator

CLASSES, DIM = 40, 4


def optimizer_of(recipe: str, config: Optimizer, *, fused: bool) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model, criterion = nn.Linear(3, DIM), nearfar.compose(recipe, num_classes=CLASSES, embedding_size=DIM)
    model, criterion = model.double(), criterion.double()
    groups = parameter_groups(model, criterion, config)
    if not fused:
        return model, criterion, make_optimizer(groups, config)
    groups, beside = fused_optimizers(groups, criterion, config.momentum)
    return model, criterion, make_optimizer(groups, config, beside=beside)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    "recipe", ["softmax + 0.1 * center", "cosface + 0.5 * softmax", "norm_softmax(learn_scale=True)"]
)
def test_what_is_learned_is_what_sgd_has_learned(recipe: str, momentum: float) -> None:
    config = Optimizer.model_validate({"name": "sgd", "lr": 0.05, "momentum": momentum, "weight_decay": 0.1})
    found = []
    for fused in (False, True):
        model, criterion, optimizer = optimizer_of(recipe, config, fused=fused)
        generator = torch.Generator().manual_seed(1)
        for number in range(4):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] / (number + 1)
            images = torch.randn(8, 3, generator=generator, dtype=torch.float64)
            labels = torch.randint(CLASSES, (8,), generator=generator)
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            gradients = [p.grad for name, p in criterion.named_parameters() if name.endswith("weight")]
            assert all(gradient is None for gradient in gradients) == fused
            optimizer.step()
        found.append(model.state_dict() | criterion.state_dict())
    torch.testing.assert_close(found[1], found[0])


def test_groups_keep_their_names_and_rates() -> None:
    config = Optimizer.model_validate({"name": "sgd", "lr": 0.05, "weight_decay": 0.1, "criterion_lr": 0.3})
    named = [
        {(group["name"], group["lr"], group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups}
        for *_, optimizer in (optimizer_of("softmax + center", config, fused=fused) for fused in (False, True))
    ]
    assert named[0] == named[1]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"optimizer": {"name": "adamw"}}, r"optimizer\.name is adamw.*set it to sgd"),
        ({"optimizer": {"name": "sgd", "clip": 1.0}}, r"optimizer\.clip .*leave it out"),
        ({"head": {"sample_rate": 0.5}}, r"head\.sample_rate .*leave one of the two out"),
        ({"precision": "16"}, r"float16 .*set precision to bf16 or 32"),
        ({"devices": 2}, r"on 2 devices .*set head\.shard to true"),
    ],
)
def test_what_needs_the_gradient_is_refused(said: dict[str, object], told: str) -> None:
    base = {"optimizer": {"name": "sgd"}, "head": {"fused": True}}
    check_fused(Config.of(base))
    with pytest.raises(ConfigError, match=told):
        check_fused(Config.of(base, said))
    check_fused(Config.of(base, said, {"head": {"fused": False}}))


def test_a_run_is_refused_before_its_data_is_read() -> None:
    with pytest.raises(ConfigError, match=r"head\.fused .*set it to sgd"):
        prepare(Config.of({"head": {"fused": True}, "data": {"source": "nowhere"}}), None, Narrator(quiet=True))


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("proxy_anchor", r"proxy_anchor has none that it can"),
        ("arcface(engine='plain')", r"the vectors of arcface cannot be stepped so: .*engine='plain'"),
    ],
)
def test_what_has_no_such_vectors_is_refused(recipe: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        optimizer_of(recipe, Optimizer.model_validate({"name": "sgd"}), fused=True)
