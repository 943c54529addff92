"""Criteria that a step computes on a share of their classes, and the optimiser that follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nearfar.errors import ArgumentError, ConfigError
from nearfar.nn import Criterion, counted

__all__ = ["row_optimizers", "sample_classes"]


def sample_classes(criterion: Criterion, rate: float, seed: int) -> None:
    """Have every term that learns class vectors take a share of them in a step, each term one of its own.

    Parameters
    ----------
    criterion : Criterion
        Its terms learn class vectors or none; those that do have a method ``sample_classes(rate, *, seed)`` and a
        mapping ``row_optimizers``, as the losses of nearfar-margin have.
    rate : float
        (0..1] The share of the classes that are not in the batch.
    seed : int

    Raises
    ------
    ConfigError
        A term learns vectors of which it cannot take a share, or none learns any.
    """
    sampled = 0
    for number, (name, loss) in enumerate(criterion.losses.items()):
        if not any(parameter.ndim > 1 for parameter in loss.parameters()):
            continue
        sample = getattr(loss, "sample_classes", None)
        if sample is None:
            raise ConfigError(
                f"head.sample_rate has a step take a share of the class vectors of every term, and {name} always takes "
                "all of them: leave the term out, or head.sample_rate"
            )
        try:
            sample(rate, seed=counted.key(seed, number) & (2**63 - 1))
        except ArgumentError as error:
            raise ConfigError(f"head.sample_rate is {rate}, and {name} cannot be sampled: {error}") from error
        sampled += 1
    if not sampled:
        raise ConfigError(
            f"head.sample_rate has a step take a share of the class vectors, and {criterion.recipe} has none: leave "
            "head.sample_rate out, or train on a margin loss such as arcface"
        )


def row_optimizers(criterion: Criterion) -> dict[nn.Parameter, Mapping[str, type[torch.optim.Optimizer]]]:
    """What steps on the parameters of the sampled terms, by the names of the optimisers of a configuration."""
    found: dict[nn.Parameter, Mapping[str, Any]] = {}
    for loss in criterion.losses.values():
        if getattr(loss, "sampler", None) is not None:
            classes: Any = loss.row_optimizers
            found |= dict.fromkeys(loss.parameters(), classes)
    return found
