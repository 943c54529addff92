"""The base of losses with learned proxies: their start, and their being spread over ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nearfar.nn import ClassLoss
from nearfar.nn.batch import Batch
from nearfar.nn.ranks import counts
from nearfar.nn.terms import Terms
from nearfar_proxy.ranks import AllClasses, Everyone, Share
from nearfar_proxy.starts import proxies

__all__ = ["ProxyLoss", "Whole"]


class Whole(NamedTuple):
    """The batch of all ranks, and this rank's proxies.

    Attributes
    ----------
    embeddings, weight
        (n, d) and (this rank's classes, …, d), in one dtype.
    labels, weights
        (n,) class ids, and what a miner made of each sample, or None.
    said
        Whether any sample counts: 0-d or a plain bool.
    """

    embeddings: Tensor
    weight: Tensor
    labels: Tensor
    weights: Tensor | None
    said: Tensor | bool


class ProxyLoss(ClassLoss):
    """A loss with ``weight``, (num_classes, embedding_size) or (num_classes, each, embedding_size).

    Parameters
    ----------
    num_classes, embedding_size
        As in :class:`nearfar.nn.ClassLoss`.
    each
        Proxies of a class; None: one, without a dimension of its own.
    init, std
        How proxies start, as in :func:`nearfar_proxy.starts.proxies`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        init: str,
        std: float,
        each: int | None = None,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, distance=distance, reducer=reducer)
        self._init, self._std, self._each = init, std, each
        #: This rank's share of the classes, where :func:`nearfar_proxy.sharding.shard` has spread them.
        self.shard: Share | None = None
        self.weight = nn.Parameter(self.drawn(num_classes))

    def drawn(self, classes: int) -> Tensor:
        """Proxies of so many classes, as they start."""
        rows = proxies(self, self._init, classes * (self._each or 1), self.embedding_size, std=self._std)
        return rows if self._each is None else rows.view(classes, self._each, self.embedding_size)

    def cannot_shard(self) -> str:
        """Why its proxies cannot be spread over ranks; nothing where they can."""
        return ""

    def shard_classes(self) -> None:
        """Spread the proxies over the ranks, as a training run with ``head.shard`` asks."""
        from nearfar_proxy.sharding import shard  # which knows this class

        shard(self)

    def reduce(self, terms: Terms | Mapping[str, Terms], inputs: Tensor, labels: Tensor | None) -> Any:
        value = super().reduce(terms, inputs, labels)
        if self.shard is not None and self.collect_stats and not self.whole_batch:
            # Each rank has the elements of all, and who asks adds up what the ranks have counted.
            self.statistics = {
                name: count / self.shard.world if name.endswith("/terms") else count
                for name, count in self.statistics.items()
            }
        return value

    def whole(self, batch: Batch) -> Whole:
        """The batch, checked, and where the proxies are sharded that of all ranks."""
        labels, weights = self.checked(batch)
        x = batch.embeddings
        if self.shard is not None and self.whole_batch:
            x = Everyone.apply(x, self.shard, None)
        elif self.shard is not None:
            sizes = counts(len(labels), labels.device, self.shard.group)
            x = Everyone.apply(x, self.shard, sizes)
            labels = self.shard.rows(labels, sizes)
            weights = None if weights is None else self.shard.rows(weights, sizes)
        said = len(labels) > 0 if weights is None else (weights > 0).any()
        x, weight = self.common(x, self.own_weight())
        return Whole(x, weight, labels, weights, said)

    def own_weight(self) -> Tensor:
        """The proxies of this rank's classes; of all where they are not sharded."""
        return self.weight if self.shard is None else self.weight.to_local()  # type: ignore[attr-defined]  # a DTensor

    def every_weight(self) -> Tensor:
        """The proxies of all classes; where they are sharded all ranks must call it."""
        return self.weight if self.shard is None else self.weight.full_tensor()  # type: ignore[attr-defined]  # a DTensor

    def every_class(self, values: Tensor) -> Tensor:
        """Values of all classes (num_classes, …), of those of this rank's."""
        if self.shard is None:
            return values
        found: Tensor = AllClasses.apply(values, self.shard)
        return found

    def classes(self, device: torch.device) -> Tensor:
        """(num_classes,) their ids."""
        return torch.arange(self.num_classes, device=device)
