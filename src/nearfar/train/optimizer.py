"""The optimiser and its parameter groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from nearfar.train.config import Optimizer


def parameter_groups(model: nn.Module, criterion: nn.Module, config: Optimizer) -> list[dict[str, Any]]:
    """Group what is learned by its learning rate and decay.

    Returns
    -------
    list of dict
        ``model``, ``model, no decay`` and the same for ``criterion``, those that have parameters; each with its
        ``name``, ``params``, ``lr``, ``initial_lr`` and ``weight_decay``. Tensors of at most one dimension (biases,
        the scale and shift of normalisations) are not decayed.
    """
    groups = []
    criterion_lr = config.lr if config.criterion_lr is None else config.criterion_lr
    for owner, module, lr in (("model", model, config.lr), ("criterion", criterion, criterion_lr)):
        learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for name, decay, parameters in (
            (owner, config.weight_decay, [p for p in learned if p.ndim > 1]),
            (f"{owner}, no decay", 0.0, [p for p in learned if p.ndim <= 1]),
        ):
            if parameters:
                groups.append({"name": name, "params": parameters, "lr": lr, "initial_lr": lr, "weight_decay": decay})
    return groups


def make_optimizer(groups: Iterable[dict[str, Any]], config: Optimizer) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov's momentum, over :func:`parameter_groups`."""
    if config.name == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.momentum > 0)
