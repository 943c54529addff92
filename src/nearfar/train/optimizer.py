"""The optimiser and its parameter groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nearfar.nn import Criterion
from nearfar.train.config import Optimizer
from nearfar.train.together import Together

#: What proxies that ask for many times the network's rate learn at: 100 times the rate a pretrained network is tuned
#: with, as in the authors' code. A network that starts untrained learns faster itself, and they need not outrun it.
FAST = 1e-2


def parameter_groups(model: nn.Module, criterion: Criterion, config: Optimizer) -> list[dict[str, Any]]:
    """Group what is learned by its learning rate and decay.

    Each term of the criterion has groups of its own. Its rate is ``criterion_lr``; without one, the model's times what
    the term asks for (:attr:`~nearfar.nn.Criterion.learning_rates`), up to 0.01 or the model's own where that is more.

    Returns
    -------
    list of dict
        ``model``, ``model, no decay`` and the same for ``criterion/<term>``, those that have parameters; each with its
        ``name``, ``params``, ``lr``, ``initial_lr`` and ``weight_decay``. Tensors of at most one dimension (biases,
        the scale and shift of normalisations) are not decayed.
    """
    groups: list[dict[str, Any]] = []
    taken: set[nn.Parameter] = set()
    for owner, module, lr in _owners(model, criterion, config):
        learned = [p for p in dict.fromkeys(module.parameters()) if p.requires_grad and p not in taken]
        taken.update(learned)
        for name, decay, parameters in (
            (owner, config.weight_decay, [p for p in learned if p.ndim > 1]),
            (f"{owner}, no decay", 0.0, [p for p in learned if p.ndim <= 1]),
        ):
            if parameters:
                groups.append({"name": name, "params": parameters, "lr": lr, "initial_lr": lr, "weight_decay": decay})
    return groups


def _owners(model: nn.Module, criterion: Criterion, config: Optimizer) -> Iterator[tuple[str, nn.Module, float]]:
    """What learns, under which name and at which rate; what no term owns, such as a miner's, at the criterion's."""
    yield "model", model, config.lr
    for name, loss in criterion.losses.items():
        rate = own_rate(config.lr, criterion.learning_rates[name])
        yield f"criterion/{name}", loss, rate if config.criterion_lr is None else config.criterion_lr
    yield "criterion", criterion, config.lr if config.criterion_lr is None else config.criterion_lr


def own_rate(lr: float, times: float) -> float:
    """What a term learns at where nothing else is said: the network's rate times what it asks for, within bounds."""
    asked = lr * times
    return max(min(asked, FAST), min(asked, lr))


def told_rates(criterion: Criterion, config: Optimizer) -> str:
    """What learns at another rate than the network, in a sentence; empty where nothing does."""
    rates = {name: rate for name, loss, rate in _owners(nn.Identity(), criterion, config) if any(_learned(loss))}
    other = {name.removeprefix("criterion/"): rate for name, rate in rates.items() if rate != config.lr}
    if not other:
        return ""
    parts = [f"{name} learns at {rate:g}, {rate / config.lr:g} times optimizer.lr" for name, rate in other.items()]
    return f"{'; '.join(parts)} (optimizer.criterion_lr)"


def _learned(module: nn.Module) -> Iterator[bool]:
    return (parameter.requires_grad for parameter in module.parameters())


_WHOLE: Mapping[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def make_optimizer(
    groups: Iterable[dict[str, Any]],
    config: Optimizer,
    others: Mapping[nn.Parameter, Mapping[str, type[torch.optim.Optimizer]]] | None = None,
    beside: Sequence[torch.optim.Optimizer] = (),
) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov's momentum, over :func:`parameter_groups`.

    Parameters
    ----------
    groups : iterable of dict
    config : Optimizer
    others : mapping, optional
        What does the same as ``adamw`` and ``sgd`` for some of the parameters
        (:func:`~nearfar.train.sampled.row_optimizers`).
    beside : sequence of Optimizer
        Those of other parameters, which are to step with it (:func:`~nearfar.train.fused.fused_optimizers`).
    """
    made: Any = {} if config.name == "adamw" else {"momentum": config.momentum, "nesterov": config.momentum > 0}
    by_class: dict[Any, list[dict[str, Any]]] = {}
    for group in groups:
        # All parameters of a group are of one term.
        classes = (others or {}).get(group["params"][0], _WHOLE)
        by_class.setdefault(classes[config.name], []).append(group)
    parts = [*(optimizer(of_class, **made) for optimizer, of_class in by_class.items()), *beside]
    return parts[0] if len(parts) == 1 else Together(parts)
