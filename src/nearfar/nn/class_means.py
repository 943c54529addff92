"""Class vectors that start at the means of their classes, in a first pass over embeddings."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.batch import check_embeddings, check_labels, check_range
from nearfar.nn.class_losses import ClassLoss
from nearfar.nn.vectors import unit

__all__ = ["ClassMeans", "has_class_vectors", "initialize"]


#: Classes whose means are written at once: in float64 they are several times as large as the vectors themselves.
_ROWS = 2**14


@torch.no_grad()
def initialize(loss: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Have a loss's proxies or centres start at the means of their classes, in one pass over embeddings.

    Vectors that are compared by their direction, as proxies and the weights of margin losses are, get the mean of unit
    vectors and keep their length; centres of embeddings as they are become the plain means. Where a class has several,
    its samples are dealt out to them in turn. One that no sample comes to stays as it is.

    Parameters
    ----------
    loss : nn.Module
        A loss with proxies, centres or class weights; a criterion with several is walked through by hand.
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
    means = ClassMeans(loss)
    for embeddings, labels in batches:
        means.add(embeddings, labels)
    means.finish()


def has_class_vectors(loss: nn.Module) -> bool:
    """Whether it has proxies, centres or weights for its classes, which :func:`initialize` can be asked for."""
    return _class_vectors(loss) is not None


class ClassMeans:
    """The sums of a pass over embeddings, of which the class vectors of a loss become the means.

    Parameters
    ----------
    loss : nn.Module
        As for :func:`initialize`, which see.

    Raises
    ------
    ArgumentError
        The loss has no class vectors, or is sharded.
    """

    def __init__(self, loss: nn.Module) -> None:
        name = type(loss).__name__
        if getattr(loss, "shard", None) is not None:
            raise ArgumentError(f"{name} is sharded: initialize it first, on every rank alike, and shard it then")
        found = _class_vectors(loss)
        if found is None:
            raise ArgumentError(
                f"{name} has neither proxies nor centres, so there is nothing to start at the means of classes"
            )
        self._loss, self._vectors, self._directed = found
        self._each = len(self._vectors) // self._loss.num_classes
        # On the CPU, where what has one index is added in order.
        self._sums = torch.zeros(len(self._vectors), self._loss.embedding_size, dtype=torch.float64)
        self._counts = self._sums.new_zeros(len(self._vectors))
        self._dealt = torch.zeros(self._loss.num_classes, dtype=torch.int64)

    @torch.no_grad()
    def add(self, embeddings: Tensor, labels: Tensor) -> None:
        """A batch: (n, embedding_size) and (n,)."""
        x = check_embeddings(embeddings, "embeddings").to(self._sums)
        y = check_labels(labels, x, "labels")
        _check(self._loss, x, y)
        turn = self._dealt[y] + _earlier(y)
        self._dealt.index_add_(0, y, torch.ones_like(y))
        which = y * self._each + turn % self._each
        self._sums.index_add_(0, which, unit(x)[0] if self._directed else x)
        self._counts.index_add_(0, which, torch.ones_like(self._counts[which]))

    @torch.no_grad()
    def finish(self) -> None:
        """Write the means."""
        if not self._counts.any():
            raise InputError("there are no embeddings to take the means of classes of")
        parts = (torch.split(each, _ROWS) for each in (self._vectors, self._sums, self._counts))
        for vectors, sums, counts in zip(*parts, strict=True):
            old = vectors.to(sums)
            means = sums / counts.clamp_min(1)[:, None]
            reached = counts > 0
            if self._directed:
                means = unit(means)[0] * torch.linalg.vector_norm(old, dim=1, keepdim=True)
                reached &= (means != 0).any(1)
            vectors.copy_(torch.where(reached[:, None], means, old))


def _class_vectors(loss: nn.Module) -> tuple[ClassLoss, Tensor, bool] | None:
    """The rows (num_classes · each, d) that stand for classes, as they are kept, and whether only their direction
    matters.
    """
    if isinstance(loss, ClassLoss):
        for what in ("centers", "weight"):
            vectors = getattr(loss, what, None)
            if isinstance(vectors, Tensor) and vectors.numel() % (loss.num_classes * loss.embedding_size) == 0:
                directed = what == "weight" or bool(getattr(loss, "normalize", False))
                return loss, vectors.detach().view(-1, loss.embedding_size), directed
    return None


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
