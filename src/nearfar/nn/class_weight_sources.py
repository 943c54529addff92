"""Class vectors found in what another program has left: a file, a checkpoint, a module, a matrix."""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, CheckpointError
from nearfar.nn.class_losses import ClassLoss

__all__ = ["KEYS", "Layout", "Source", "check_layout", "check_order", "matrix", "vectors", "weight_of"]

Layout = Literal["rows", "columns"]
#: A matrix; a state dict or a checkpoint that holds one; a module; or a file of any of these but the last.
Source = Tensor | Mapping[str, Any] | nn.Module | str | PathLike[str]

#: What a matrix of each layout is called, unless asked for: by insightface and by the margin losses of
#: pytorch-metric-learning.
KEYS: Mapping[Layout, str] = {"rows": "weight", "columns": "W"}
#: And by the latter's proxy losses.
NAMES = (*KEYS.values(), "proxies", "fc")
#: Where insightface's checkpoints keep the state of the head, beside that of the network and of the optimiser.
INSIGHTFACE = "state_dict_softmax_fc"


def check_layout(layout: str) -> None:
    if layout not in KEYS:
        raise ArgumentError(f"layout must be 'rows' or 'columns'; got {layout!r}")


def weight_of(loss: ClassLoss) -> Tensor:
    """The class vectors of a loss, (num_classes, dim) or (num_classes, k, dim).

    Raises
    ------
    ArgumentError
        It has none called ``weight``, as centres are not, or they are of no classes.
    """
    weight = getattr(loss, "weight", None)
    sizes = (loss.num_classes, loss.embedding_size)
    if not isinstance(weight, Tensor) or weight.ndim not in (2, 3) or (weight.shape[0], weight.shape[-1]) != sizes:
        raise ArgumentError(f"{type(loss).__name__} has no weight with vectors for each of its classes")
    return weight


def check_order(parts: Sequence[object]) -> None:
    """Refuse ``…_10.pt`` before ``…_2.pt``, as names are sorted: classes would change places unseen."""
    names = [Path(part).name for part in parts if isinstance(part, str | PathLike)]
    ranks = [int(found[-1]) for name in names if (found := re.findall(r"\d+", name))]
    if len(ranks) == len(parts) and any(a >= b for a, b in itertools.pairwise(ranks)):
        raise ArgumentError(
            f"shards are given rank by rank, and the names of these do not count up: {', '.join(names)}"
        )


def matrix(part: Source, loss: ClassLoss, layout: Layout | None, key: str | None, whole: bool) -> Tensor:
    """The tensor of a source that the class vectors are in; all of them where it is the ``whole``."""
    if isinstance(part, Tensor):
        return part.detach()
    where = repr(str(part)) if isinstance(part, str | PathLike) else f"the given {type(part).__name__}"
    content = _read(part) if isinstance(part, str | PathLike) else part
    if isinstance(content, Tensor):
        return content
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{where} holds no tensor and no state dict: {type(content).__name__}")
    tensors = dict(_named(content))
    if key is not None:
        if key not in tensors:
            raise CheckpointError(f"{where} has no tensor {key!r}; it has {_listed(tensors)}")
        return tensors[key]
    if head := {name: value for name, value in tensors.items() if name.startswith(f"{INSIGHTFACE}.")}:
        tensors = head
    named = {name: value for name, value in tensors.items() if name.split(".")[-1] in NAMES}
    fitting = {name: value for name, value in named.items() if _fits(value, loss, layout, whole)}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    none = f"no tensor called {', '.join(NAMES[:-1])} or {NAMES[-1]} fits"
    what = "more than one tensor fits; say which with key=…" if fitting else none
    raise CheckpointError(
        f"{where} is to have class vectors of num_classes={loss.num_classes}, embedding_size={loss.embedding_size}: "
        f"{what}; it has {_listed(fitting or tensors)}"
    )


def _fits(tensor: Tensor, loss: ClassLoss, layout: Layout | None, whole: bool) -> bool:
    if tensor.ndim not in (2, 3) or not tensor.is_floating_point():
        return False
    found = _layouts(tensor, loss) if layout is None else [layout] if layout in _layouts(tensor, loss) else []
    count = _per_class(loss) * loss.num_classes
    return bool(found) and (not whole or tensor.numel() == count * loss.embedding_size)


def _layouts(tensor: Tensor, loss: ClassLoss) -> list[Layout]:
    """Those that the shape allows."""
    d, k = loss.embedding_size, _per_class(loss)
    if tensor.ndim == 3:
        return ["rows"] if tensor.shape[1:] == (k, d) else []
    if tensor.ndim != 2:
        return []
    found: list[Layout] = []
    if tensor.shape[1] == d and tensor.shape[0] % k == 0:
        found.append("rows")
    if tensor.shape[0] == d and tensor.shape[1] % k == 0:
        found.append("columns")
    return found


def _per_class(loss: ClassLoss) -> int:
    """How many vectors a class has."""
    return int(weight_of(loss).shape[1]) if weight_of(loss).ndim == 3 else 1


def vectors(tensor: Tensor, loss: ClassLoss, layout: Layout | None) -> Tensor:
    """(classes, k, dim) of a matrix in any layout."""
    if layout is not None:
        check_layout(layout)
    k, d, shape = _per_class(loss), loss.embedding_size, tuple(tensor.shape)
    layouts = _layouts(tensor, loss)
    if not layouts or (layout is not None and layout not in layouts):
        asked = "" if layout is None else f" as {layout}"
        raise CheckpointError(
            f"a tensor {shape} holds no class vectors{asked} with embedding_size={d}"
            + (f", {k} of each class" if k > 1 else "")
            + "; rows are (classes, dim), columns (dim, classes)"
            + ("" if k > 1 else "; of a loss with several vectors a class, dominant() gives one")
        )
    if layout is None and len(layouts) > 1:
        raise ArgumentError(
            f"a tensor {shape} may hold a class in each row or in each column; say layout='rows' (insightface, "
            "nearfar, pytorch-metric-learning's proxies) or layout='columns' (its W and fc)"
        )
    rows = tensor.T if (layout or layouts[0]) == "columns" else tensor
    return rows.reshape(-1, k, d)


def _named(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of mappings in mappings, by their names joined with dots."""
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _named(value, f"{prefix}{name}.")


def _listed(tensors: Mapping[str, Tensor], most: int = 8) -> str:
    shown = [f"{name} {tuple(value.shape)}" for name, value in list(tensors.items())[:most]]
    return (", ".join(shown) or "no tensors") + (f" and {len(tensors) - most} more" if len(tensors) > most else "")


def _read(path: str | PathLike[str]) -> Any:
    try:
        if str(path).endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {str(path)!r}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{str(path)!r} holds more than tensors and plain values, which could run code when it is read; load it "
            "yourself if you trust it, and give what it holds in place of the path"
        ) from error
    except Exception as error:  # what the two readers raise of a damaged file
        raise CheckpointError(f"{str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
