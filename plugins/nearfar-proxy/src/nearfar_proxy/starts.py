"""Where proxies and centres start: drawn, or at the means of their classes in a first pass.

::

    loss = nearfar.create_loss("proxy_nca(init='orthogonal')", num_classes=100, embedding_size=64)
    initialize(loss, ((model(images), labels) for images, labels in loader))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn import ClassLoss
from nearfar.nn.arguments import check_choice
from nearfar.nn.batch import check_embeddings, check_labels, check_range
from nearfar.nn.vectors import unit

__all__ = ["CentreStart", "Start", "centres", "initialize", "proxies"]

Start = Literal["normal", "uniform", "orthogonal"]
CentreStart = Literal["zero", "normal", "orthogonal"]


def proxies(owner: object, init: str, rows: int, dim: int, *, std: float = 1.0) -> Tensor:
    """(rows, dim) of a part that is being made, drawn with torch's global generator.

    Parameters
    ----------
    owner
        The part, for the message.
    init
        ``normal`` and ``uniform``: of standard deviation ``std``. ``orthogonal``: as many at right angles as there are
        dimensions, and where there are more rows spread evenly over the dimensions; each as long as normal ones are in
        the mean square.
    rows, dim, std
        As above.

    Raises
    ------
    ArgumentError
        ``init`` is none of the three.
    """
    check_choice(owner, "init", init, ("normal", "uniform", "orthogonal"))
    drawn = torch.empty(rows, dim)
    if init == "normal":
        return nn.init.normal_(drawn, std=std)
    if init == "uniform":
        return nn.init.uniform_(drawn, -std * 3**0.5, std * 3**0.5)
    nn.init.orthogonal_(drawn)
    length: float = std * dim**0.5
    return unit(drawn)[0] * length


def centres(owner: object, init: str, rows: int, dim: int) -> Tensor:
    """The same, of variance 1, for centres, which may also start at ``zero``."""
    check_choice(owner, "init", init, ("zero", "normal", "orthogonal"))
    return torch.zeros(rows, dim) if init == "zero" else proxies(owner, init, rows, dim)


@torch.no_grad()
def initialize(loss: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Have a loss's proxies or centres start at the means of their classes, in one pass over embeddings.

    Proxies that are compared by their direction get the mean of unit vectors and keep their length; centres of
    embeddings as they are become the plain means. Where a class has several proxies, its samples are dealt out to them
    in turn. One that no sample comes to stays as it is.

    Parameters
    ----------
    loss : nn.Module
        A loss of this plugin with proxies or centres; a criterion with several is walked through by hand.
    batches : iterable of (Tensor, Tensor)
        Embeddings (n, embedding_size) and labels (n,); a single ``[(embeddings, labels)]``, or as many as a loader
        has: ``((model(images), labels) for images, labels in loader)``. The model should be in evaluation mode.

    Raises
    ------
    ArgumentError
        The loss has neither proxies nor centres for classes, or is sharded.
    InputError
        Shapes do not fit, a label is out of range, an embedding is not finite, or there is none.
    """
    vectors, each, directed = _vectors(loss)
    assert isinstance(loss, ClassLoss)
    # On the CPU, where what has one index is added in order.
    sums = torch.zeros(len(vectors), loss.embedding_size, dtype=torch.float64)
    counts, dealt = sums.new_zeros(len(vectors)), sums.new_zeros(loss.num_classes, dtype=torch.int64)
    for given, classes in batches:
        x = check_embeddings(given, "embeddings").to(sums)
        y = check_labels(classes, x, "labels")
        _check(loss, x, y)
        turn = dealt[y] + _earlier(y)
        dealt.index_add_(0, y, torch.ones_like(y))
        which = y * each + turn % each
        sums.index_add_(0, which, unit(x)[0] if directed else x)
        counts.index_add_(0, which, torch.ones_like(counts[which]))
    if not counts.any():
        raise InputError("there are no embeddings to take the means of classes of")
    old = vectors.to(sums)
    means = sums / counts.clamp_min(1)[:, None]
    if directed:
        means = unit(means)[0] * torch.linalg.vector_norm(old, dim=1, keepdim=True)
    reached = (counts > 0) & (means != 0).any(1) if directed else counts > 0
    vectors.copy_(torch.where(reached[:, None], means, old))


def _vectors(loss: nn.Module) -> tuple[Tensor, int, bool]:
    """The rows (num_classes · each, d) that stand for classes, as they are kept; how many each has; and whether only
    their direction matters.
    """
    name = type(loss).__name__
    if getattr(loss, "shard", None) is not None:
        raise ArgumentError(f"{name} is sharded: initialize it first, on every rank alike, and shard it then")
    if isinstance(loss, ClassLoss):
        for what in ("centers", "weight"):
            vectors = getattr(loss, what, None)
            if isinstance(vectors, Tensor) and vectors.numel() % (loss.num_classes * loss.embedding_size) == 0:
                rows = vectors.detach().view(-1, loss.embedding_size)
                directed = what == "weight" or bool(getattr(loss, "normalize", False))
                return rows, len(rows) // loss.num_classes, directed
    raise ArgumentError(f"{name} has neither proxies nor centres, so there is nothing to start at the means of classes")


def _check(loss: ClassLoss, x: Tensor, y: Tensor) -> None:
    if x.shape[1] != loss.embedding_size:
        raise InputError(f"{type(loss).__name__} has embedding_size={loss.embedding_size}; got {tuple(x.shape)}")
    if not x.isfinite().all():
        raise InputError("an embedding is not finite, and would spoil the mean of its class")
    check_range(
        y, loss.num_classes, f"{type(loss).__name__} has num_classes={loss.num_classes}; got labels {{low}} to {{high}}"
    )


def _earlier(y: Tensor) -> Tensor:
    """(n,) how many of the same label stand before each."""
    ordered, order = y.sort(stable=True)
    at = torch.arange(len(y), device=y.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(at).scatter_(0, order, at)
