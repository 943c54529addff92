"""Criteria whose class vectors are stepped by the backward pass, and the optimisers that say how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from nearfar.errors import ArgumentError, ConfigError
from nearfar.nn import Criterion
from nearfar.train.config import Config

__all__ = ["check_fused", "fused_optimizers"]


def check_fused(config: Config) -> None:
    """See that nothing is asked for that needs the gradient of the class vectors, which ``head.fused`` does without.

    Raises
    ------
    ConfigError
        Something does.
    """
    head, optimizer = config.head, config.optimizer
    if not head.fused:
        return
    reasons = {
        f"optimizer.name is {optimizer.name}, of which there is no such form: set it to sgd": optimizer.name != "sgd",
        "optimizer.clip is a bound on the norm of all gradients: leave it out": optimizer.clip is not None,
        "head.sample_rate leaves little of that gradient: leave one of the two out": head.sample_rate < 1,
        "float16 has its gradients scaled and looked at before a step: set precision to bf16 or 32": (
            config.precision == "16"
        ),
        f"on {config.devices} devices each would step all of them by itself: set head.shard to true": (
            config.devices > 1 and not head.shard
        ),
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        raise ConfigError(
            f"head.fused has the backward pass step the class vectors, with no gradient of them; {'; '.join(found)}"
        )


def fused_optimizers(
    groups: list[dict[str, Any]], criterion: Criterion, momentum: float
) -> tuple[list[dict[str, Any]], list[torch.optim.Optimizer]]:
    """Take the class vectors that the backward pass can step out of :func:`~nearfar.train.optimizer.parameter_groups`.

    Parameters
    ----------
    groups : list of dict
    criterion : Criterion
        Terms whose class vectors can be stepped so have a method ``fused_sgd(lr, *, momentum, nesterov, weight_decay)``
        and a ``weight``, as the losses of nearfar-margin have. Of others the optimiser steps all.
    momentum : float
        Nesterov's, as the optimiser of the others has it.

    Returns
    -------
    list of dict
        What is left of the groups.
    list of Optimizer
        One for each of those terms, with a group of the settings and the name that the vectors had.

    Raises
    ------
    ConfigError
        No term can, or one cannot as it is configured.
    """
    learned = {parameter for group in groups for parameter in group["params"]}
    losses: dict[str, Any] = dict(criterion.losses.items())
    terms = {name: loss for name, loss in losses.items() if hasattr(loss, "fused_sgd") and loss.weight in learned}
    if not terms:
        raise ConfigError(
            f"head.fused has the backward pass step the class vectors, and {criterion.recipe} has none that it can: "
            "leave head.fused out, or train on a margin loss such as arcface"
        )
    made = [_fused(name, loss, groups, momentum) for name, loss in terms.items()]
    weights = {loss.weight for loss in terms.values()}
    return list(_without(groups, weights)), made


def _fused(name: str, loss: Any, groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    group = next(group for group in groups if any(each is loss.weight for each in group["params"]))
    settings = {"momentum": momentum, "nesterov": momentum > 0, "weight_decay": group["weight_decay"]}
    try:
        optimizer: torch.optim.Optimizer = loss.fused_sgd(group["lr"], **settings)
    except ArgumentError as error:
        raise ConfigError(f"head.fused is true, and the vectors of {name} cannot be stepped so: {error}") from error
    optimizer.param_groups[0] |= {"name": group["name"], "initial_lr": group["initial_lr"]}
    return optimizer


def _without(groups: list[dict[str, Any]], weights: set[Any]) -> Iterator[dict[str, Any]]:
    for group in groups:
        if left := [parameter for parameter in group["params"] if parameter not in weights]:
            yield {**group, "params": left}
