"""Class vectors of other programs in, and ours out.

=====================================  ====================  ==============================  ========================
Program                                Name                  Shape                           Layout here
=====================================  ====================  ==============================  ========================
nearfar                                ``weight``            (classes, dim)                  ``rows``
insightface, Partial FC                ``weight``            (classes of the rank, dim)      ``rows``, a file a rank
pytorch-metric-learning                ``W``                 (dim, classes)                  ``columns``
its ProxyNCALoss, ProxyAnchorLoss      ``proxies``           (classes, dim)                  ``rows``
its SoftTripleLoss                     ``fc``                (dim, classes · k)              ``columns``
=====================================  ====================  ==============================  ========================

None of them normalises what it keeps, and neither is anything normalised on the way. A class with k vectors has them
one after the other along the classes: (classes · k, dim), (dim, classes · k); nearfar's own are (classes, k, dim).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nearfar.errors import ArgumentError, CheckpointError
from nearfar.nn.class_losses import ClassLoss
from nearfar.nn.class_weight_sources import (
    KEYS,
    Layout,
    Source,
    check_layout,
    check_order,
    matrix,
    vectors,
    weight_of,
)

__all__ = ["Layout", "Source", "class_vectors", "load_weight", "save_weight"]


def load_weight(
    loss: ClassLoss,
    source: Source | Sequence[Source],
    *,
    layout: Layout | None = None,
    key: str | None = None,
    classes: Sequence[int] | Tensor | None = None,
) -> None:
    """Put the class vectors of another head into a loss, in place; anything else it has stays.

    Parameters
    ----------
    loss
        One with a ``weight`` for its classes, as margin losses and proxy losses have it. Where it is sharded every rank
        calls this, and keeps its own classes.
    source
        A tensor; a module, state dict or checkpoint; or the path of one (``.safetensors``, or what
        ``torch.load(weights_only=True)`` takes). Several of them, in a list, are the shards of one head, rank by rank:
        insightface's ``checkpoint_gpu_{rank}.pt``. Shards are of ``rows``.
    layout
        ``rows``: (classes, dim), as insightface and nearfar have it. ``columns``: (dim, classes), as
        pytorch-metric-learning's margin losses have it. Seen from the shape unless given; where there are as many
        vectors as dimensions the shape does not tell, and it must be given.
    key
        Which tensor of a checkpoint, its names joined by dots: ``state_dict.head.weight``. Unless given it must be the
        only one called ``weight``, ``W``, ``proxies`` or ``fc`` that fits.
    classes
        (num_classes,) For each class of the loss which of the source it is; the same number unless given, and then
        there must be as many.

    Raises
    ------
    ArgumentError
        The layout must be given, shards are not in the order of their ranks, ``classes`` names none of the source, or
        the loss has no ``weight`` of classes.
    CheckpointError
        No tensor of the source fits, more than one does, or a file cannot be read.

    Examples
    --------
    >>> import torch
    >>> import nearfar
    >>> loss = nearfar.create_loss("cosface", num_classes=3, embedding_size=2)
    >>> load_weight(loss, {"W": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])})
    >>> loss.weight.tolist()
    [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    """
    parts = list(source) if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    if not parts:
        raise ArgumentError("there is no source to load class vectors from: the list of shards is empty")
    check_order(parts)
    # No program cuts columns into shards.
    layout = layout or ("rows" if len(parts) > 1 else None)
    found = [matrix(part, loss, layout, key, whole=len(parts) == 1 and classes is None) for part in parts]
    shares = [vectors(each, loss, layout) for each in found]
    everything = torch.cat(shares)
    if classes is not None:
        everything = everything[_chosen(classes, len(everything), loss)]
    if len(everything) != loss.num_classes:
        counts = " + ".join(str(len(share)) for share in shares)
        raise CheckpointError(
            f"the source has {counts} classes, and the loss has num_classes={loss.num_classes}; make the loss with as "
            "many, or say with classes=[…] which of the source's each of its classes is"
        )
    weight = weight_of(loss)
    if share := getattr(loss, "shard", None):
        weight = cast(Any, weight).to_local()
        everything = everything[share.start : share.stop]
    with torch.no_grad():
        weight.copy_(everything.view_as(weight))


def class_vectors(loss: ClassLoss, layout: Layout = "rows", *, key: str | None = None) -> dict[str, Tensor]:
    """The state dict of another program's head with the class vectors of a loss.

    Parameters
    ----------
    loss
        As for :func:`load_weight`; where it is sharded every rank has to call this, and all get the whole.
    layout
        ``rows``: ``{"weight": (classes, dim)}``, as insightface's ``PartialFC`` on one rank takes it. ``columns``:
        ``{"W": (dim, classes)}``, as pytorch-metric-learning's margin losses take it. Of several vectors a class one
        comes after the other.
    key
        Another name than these: ``proxies`` in rows and ``fc`` in columns for pytorch-metric-learning's proxy losses.

    Returns
    -------
    dict
        For ``load_state_dict``; a copy.
    """
    check_layout(layout)
    weight = weight_of(loss).detach()
    rows = getattr(weight, "full_tensor", lambda: weight)().flatten(0, -2)
    return {key or KEYS[layout]: (rows if layout == "rows" else rows.T).clone(memory_format=torch.contiguous_format)}


def save_weight(
    loss: ClassLoss, path: str | PathLike[str], *, layout: Layout = "rows", key: str | None = None, shards: int = 1
) -> list[Path]:
    """Write the class vectors of a loss for another program.

    Parameters
    ----------
    loss
        As for :func:`load_weight`; where it is sharded every rank has to call this, and the first one writes.
    path
        Of the file: ``.safetensors``, or anything else for ``torch.save``. With several shards it holds ``{rank}``.
    layout, key
        As in :func:`class_vectors`.
    shards
        [1..inf] How many files, of as many ranks of insightface's Partial FC: the first ``classes % shards`` of them
        have one class more. Of ``rows`` only.

    Returns
    -------
    list of Path
        The files, rank by rank.

    Raises
    ------
    ArgumentError
        ``shards`` and ``path`` or ``layout`` do not fit together.
    """
    check_layout(layout)
    if shards < 1 or (shards > 1) != ("{rank}" in str(path)) or (shards > 1 and layout != "rows"):
        raise ArgumentError(
            "several shards go to as many files, with {rank} in the path, and have layout='rows'; got "
            f"shards={shards}, path={str(path)!r}, layout={layout!r}"
        )
    state = class_vectors(loss, layout, key=key)
    paths = [Path(str(path).replace("{rank}", str(rank))) for rank in range(shards)]
    share = getattr(loss, "shard", None)
    if share is not None and share.rank:
        return paths
    if shards == 1:
        _write(state, paths[0])
        return paths
    ((name, rows),) = state.items()
    k = len(rows) // loss.num_classes
    size, more = divmod(loss.num_classes, shards)
    counts = [k * (size + (rank < more)) for rank in range(shards)]
    for part, file in zip(torch.split(rows, counts), paths, strict=True):
        _write({name: part.clone()}, file)
    return paths


def _chosen(classes: Sequence[int] | Tensor, count: int, loss: ClassLoss) -> Tensor:
    """Which of ``count`` classes each of the loss is."""
    index = torch.as_tensor(classes)
    low, high = (int(index.min()), int(index.max())) if index.numel() else (0, 0)
    if index.shape != (loss.num_classes,) or index.is_floating_point() or low < 0 or high >= count:
        raise ArgumentError(
            f"classes must give each of the {loss.num_classes} classes of the loss one of the {count} of the source, "
            f"0 to {count - 1}; got {tuple(index.shape)} numbers from {low} to {high}"
        )
    return index.long()


def _write(state: dict[str, Tensor], path: Path) -> None:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(state, path)
