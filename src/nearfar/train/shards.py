"""Tensors of which each rank holds some rows: whole ones in a checkpoint, and rows of them again afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nearfar.errors import ArgumentError, ConfigError
from nearfar.nn import Criterion

__all__ = ["held", "rows_of_states", "rows_of_tensors", "shard_classes", "sharded_names", "told_whole", "whole"]


def shard_classes(criterion: Criterion, device: torch.device) -> None:
    """Have each rank keep the vectors of some of the classes, in every term that can: those with ``shard_classes``.

    Of other terms every rank keeps all.

    Raises
    ------
    ConfigError
        No term has classes to share out, or one cannot as it is configured.
    """
    criterion.to(device)
    shared: dict[str, Any] = {name: loss for name, loss in criterion.losses.items() if hasattr(loss, "shard_classes")}
    if not shared:
        raise ConfigError(
            f"head.shard shares class vectors out to the devices, and {criterion.recipe} has none that can be: leave "
            "head.shard out, or train on a margin loss such as arcface"
        )
    for name, loss in shared.items():
        try:
            loss.shard_classes()
        except ArgumentError as error:
            raise ConfigError(f"head.shard is true, and {name} cannot be shared out: {error}") from error


def told_whole(criterion: Criterion) -> str:
    """Which terms learn vectors that every rank keeps all of beside those that are shared out; empty where none do."""
    parts: dict[str, bool] = {}
    for name, loss in criterion.losses.items():
        if vectors := [parameter for parameter in loss.parameters() if parameter.ndim > 1]:
            parts[name] = any(isinstance(parameter, DTensor) for parameter in vectors)
    kept = [name for name, spread in parts.items() if not spread]
    return f"head.shard: every device keeps all that {', '.join(kept)} learns" if any(parts.values()) and kept else ""


def sharded_names(module: nn.Module) -> list[str]:
    """All that is learned or kept by the modules that have parameters of which this rank has a part.

    What of it is no such part every rank has alike, gradients as well: it was told to the others already.
    """
    names: dict[str, None] = {}
    for prefix, part in module.named_modules():
        if any(isinstance(parameter, DTensor) for parameter in part.parameters(recurse=False)):
            own = (name for named in (part.named_parameters(), part.named_buffers()) for name, _ in named)
            names |= dict.fromkeys(f"{prefix}.{name}" if prefix else name for name in own)
    return list(names)


def held(tensor: Tensor) -> Tensor:
    """The numbers of a tensor that this rank has; of a sparse one those that it lists."""
    here: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    values: Tensor = here._values() if here.is_sparse else here
    return values


def whole(value: Any, *, keep: bool) -> Any:
    """Nested data with whole tensors in place of rows of them, on the CPU; all ranks call it, and some keep nothing."""
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: whole(item, keep=keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(item, keep=keep) for item in value)
    return value


def rows_of_tensors(module: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """A whole ``state_dict`` with this rank's rows where the module has rows."""
    own = module.state_dict()
    return {name: _rows(value, own.get(name)) for name, value in state.items()}


def rows_of_states(parameters: Iterable[Tensor], state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's whole ``state_dict`` with this rank's rows where its parameters, in their order, have rows."""
    numbered = dict(enumerate(parameters))
    states = {
        number: {name: _rows(value, numbered.get(number)) for name, value in of_one.items()}
        for number, of_one in state["state"].items()
    }
    return {**state, "state": states}


def _rows(value: Any, own: Any) -> Any:
    """The rows that ``own`` has, of what has as many rows in all."""
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape[:1] != own.shape[:1]:
        return value
    mesh = own.device_mesh
    size = -(-len(value) // mesh.size())
    start = min(mesh.get_local_rank() * size, len(value))
    rows = value[start : min(start + size, len(value))].clone().to(own.device)
    stride = torch.empty(value.shape, device="meta").stride()
    return DTensor.from_local(rows, mesh, own.placements, run_check=False, shape=value.shape, stride=stride)
