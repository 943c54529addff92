"""Class vectors of other programs in, and ours out.

==========================  ====================  ==============================  ==================================
Program                     Name                  Shape                           Layout here
==========================  ====================  ==============================  ==================================
nearfar                     ``weight``            (classes, dim)                  ``rows``
insightface, Partial FC     ``weight``            (classes of the rank, dim)      ``rows``, a file a rank
pytorch-metric-learning     ``W``                 (dim, classes)                  ``columns``
==========================  ====================  ==============================  ==================================

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
from nearfar_margin.engine_loss import EngineLoss
from nearfar_margin.weight_sources import NAMES, Layout, Source, check_layout, check_order, matrix, vectors

__all__ = ["Layout", "Source", "class_vectors", "load_weight", "save_weight"]


def load_weight(
    loss: EngineLoss,
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
        A loss of the family; where it is sharded every rank calls this, and keeps its own classes.
    source
        A tensor; a module, state dict or checkpoint; or the path of one (``.safetensors``, or what
        ``torch.load(weights_only=True)`` takes). Several of them, in a list, are the shards of one head, rank by rank:
        insightface's ``checkpoint_gpu_{rank}.pt``. Shards are of ``rows``.
    layout
        ``rows``: (classes, dim), as insightface and nearfar have it. ``columns``: (dim, classes), as
        pytorch-metric-learning has it. Seen from the shape unless given; where there are as many vectors as dimensions
        the shape does not tell, and it must be given.
    key
        Which tensor of a checkpoint, its names joined by dots: ``state_dict.head.weight``. Unless given it must be the
        only one called ``weight`` or ``W`` that fits.
    classes
        (num_classes,) For each class of the loss which of the source it is; the same number unless given, and then
        there must be as many.

    Raises
    ------
    ArgumentError
        The layout must be given, shards are not in the order of their ranks, or ``classes`` names none of the source.
    CheckpointError
        No tensor of the source fits, more than one does, or a file cannot be read.

    Examples
    --------
    >>> import torch
    >>> from nearfar_margin.cosface import CosFace
    >>> loss = CosFace(num_classes=3, embedding_size=2)
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
    weight: Tensor = loss.weight
    if loss.shard is not None:
        weight = cast(Any, weight).to_local()
        everything = everything[loss.shard.start : loss.shard.stop]
    with torch.no_grad():
        weight.copy_(everything.view_as(weight))


def class_vectors(loss: EngineLoss, layout: Layout = "rows") -> dict[str, Tensor]:
    """The state dict of another program's head with the class vectors of a loss.

    Parameters
    ----------
    loss
        A loss of the family; where it is sharded every rank has to call this, and all get the whole.
    layout
        ``rows``: ``{"weight": (classes, dim)}``, as insightface's ``PartialFC`` on one rank takes it. ``columns``:
        ``{"W": (dim, classes)}``, as pytorch-metric-learning's losses take it. Of several vectors a class one comes
        after the other.

    Returns
    -------
    dict
        For ``load_state_dict``; a copy.
    """
    check_layout(layout)
    rows = loss.whole().detach().flatten(0, -2)
    return {NAMES[layout]: (rows if layout == "rows" else rows.T).clone(memory_format=torch.contiguous_format)}


def save_weight(loss: EngineLoss, path: str | PathLike[str], *, layout: Layout = "rows", shards: int = 1) -> list[Path]:
    """Write the class vectors of a loss for another program.

    Parameters
    ----------
    loss
        A loss of the family; where it is sharded every rank has to call this, and the first one writes.
    path
        Of the file: ``.safetensors``, or anything else for ``torch.save``. With several shards it holds ``{rank}``.
    layout
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
    state = class_vectors(loss, layout)
    paths = [Path(str(path).replace("{rank}", str(rank))) for rank in range(shards)]
    if loss.shard is not None and loss.shard.rank:
        return paths
    if shards == 1:
        _write(state, paths[0])
        return paths
    k = len(state["weight"]) // loss.num_classes
    size, more = divmod(loss.num_classes, shards)
    counts = [k * (size + (rank < more)) for rank in range(shards)]
    for part, file in zip(torch.split(state["weight"], counts), paths, strict=True):
        _write({"weight": part.clone()}, file)
    return paths


def _chosen(classes: Sequence[int] | Tensor, count: int, loss: EngineLoss) -> Tensor:
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
