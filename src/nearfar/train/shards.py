"""Tensors of which each rank holds some rows: whole ones in a checkpoint, and rows of them again afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nearfar.errors import ConfigError
from nearfar.nn import Criterion

__all__ = ["rows_of_states", "rows_of_tensors", "shard_classes", "sharded_names", "whole"]


def shard_classes(criterion: Criterion, device: torch.device) -> None:
    """Have each rank keep the vectors of some of the classes, in every term.

    Raises
    ------
    ConfigError
        A term has no classes to share out, so that it would see this rank's part of the batch alone.
    """
    criterion.to(device)
    for name, loss in criterion.losses.items():
        share_out = getattr(loss, "shard_classes", None)
        if share_out is None:
            raise ConfigError(
                f"head.shard shares the classes of every term out to the devices, and {name} has none that can: leave "
                "the term out, or head.shard"
            )
        share_out()


def sharded_names(module: nn.Module) -> list[str]:
    """The parameters of which this rank has a part, and the buffers of the losses they are of."""
    names = []
    for prefix, part in module.named_modules():
        own = [name for name, parameter in part.named_parameters(recurse=False) if isinstance(parameter, DTensor)]
        buffers = [name for name, _ in part.named_buffers()] if own else []
        names += [f"{prefix}.{name}" if prefix else name for name in (*own, *buffers)]
    return names


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
