"""The base class of miners: an author writes :meth:`choose`, the rest is here."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance, Euclidean
from nearfar.nn.labels import Labels
from nearfar.nn.precision import full_precision
from nearfar.nn.selection import Selection

__all__ = ["Miner"]


class Miner(nn.Module):
    """A choice of pairs or triplets of a batch.

    Parameters
    ----------
    distance
        What nearness is; unset, it is that of the loss the miner selects for, and Euclidean for a miner
        on its own.
    """

    def __init__(self, *, distance: nn.Module | None = None) -> None:
        super().__init__()
        self.distance: Any = distance

    @abstractmethod
    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> Selection:
        """The selection of a batch that has been checked.

        Parameters
        ----------
        batch
            What to choose from; never in need of a gradient.
        distance
            The miner's own, or that of the loss.
        loss
            The loss the selection is for, or None; whatever else the miner leaves unset is read from it.
        """

    def select(
        self,
        embeddings: Tensor,
        labels: Labels,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
        *,
        loss: nn.Module | None = None,
    ) -> Selection:
        """What to look at of a batch, in as compact a form as the miner knows.

        Parameters
        ----------
        embeddings, labels
            (n, d), and (n,) class ids or (n, classes) boolean multi-hot, by which positives share at least one label,
            or :class:`~nearfar.nn.labels.RuledLabels` without grades.
        ref_emb, ref_labels
            (m, d), and labels of the same kind: choose positives and negatives from these.
        loss
            The loss it is for.

        Raises
        ------
        InputError
            A shape or dtype does not fit.
        """
        with torch.no_grad(), full_precision(embeddings):
            batch = Batch.of(embeddings, labels, None, ref_emb, ref_labels)
            if batch.is_graded:
                raise InputError(
                    f"{type(self).__name__} chooses among positives and negatives, which labels with grades do not "
                    "tell apart; leave out the miner"
                )
            return self.choose(batch, self._distance_for(loss), loss)

    def _distance_for(self, loss: nn.Module | None) -> Any:
        if self.distance is not None:
            return self.distance
        distance = getattr(loss, "distance", None)
        return _EUCLIDEAN if distance is None else distance

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> tuple[Tensor, ...]:
        """The selection as a tuple of index tensors: three for triplets, four for pairs."""
        return self.select(embeddings, labels, ref_emb, ref_labels).indices()


#: Of every miner on its own: to make a module takes as long as to select from a small batch's row.
_EUCLIDEAN = Euclidean()


def margin_of(miner: nn.Module, margin: float | None, loss: nn.Module | None) -> float:
    """The miner's own margin, or that of the loss it selects for.

    Raises
    ------
    ArgumentError
        Neither has one.
    """
    if margin is not None:
        return float(margin)
    found = getattr(loss, "margin", None)
    if found is None:
        raise ArgumentError(
            f"{type(miner).__name__} has no margin of its own and selects for no loss that has one; give it margin=…"
        )
    return float(found)


def same_distance(first: Any, second: Any) -> bool:
    """Whether two distances give the same matrix, as far as can be told."""
    return first is second or (isinstance(first, Distance) and first.same_as(second))
