"""Base class of the losses in which each positive pair stands against the negatives of both its ends."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.terms import Terms
from nearfar_pair.ends import BothEnds
from nearfar_pair.row_pass import RowPass, is_at_once, is_table_cheaper
from nearfar_pair.row_terms import Made, RowTerms
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Pull, Sloped

__all__ = ["BothEndsLoss", "Cost", "Costs", "share_of_larger"]


class Costs(NamedTuple):
    """The costs of positive pairs, and how a gradient by their sum goes back.

    Attributes
    ----------
    values
        (n, k), 0 where there is no pair; differentiable where gradients are recorded.
    pull
        Of the gradient by the sum those by the distances of the pairs and by the numbers of their anchors and of their
        positives, (n, k) each, 0 where there is no pair.
    """

    values: Tensor
    pull: Callable[[Any], tuple[Tensor, Tensor, Tensor]]


#: Of :class:`~nearfar_pair.ends.BothEnds`, as often as it is asked in one call of a loss the same.
Cost = Callable[[BothEnds], Costs]


class BothEndsLoss(EmbeddingLoss):
    """A loss with a cost for each positive pair of which an end has a negative; its terms are ``pos_pair``."""

    #: Whether a cost can be below zero.
    signed = False

    @abstractmethod
    def threat(self, rows: Rows) -> tuple[Tensor, Pull]:
        """(r,) how near the negatives of each anchor are, −FAR or so where there is none; and how a gradient by that
        goes back to the distances of the references."""

    @abstractmethod
    def cost(self) -> Cost:
        """What pairs cost in one call."""

    def terms(self, batch: Batch) -> Terms:
        cost = self.cost()
        rows: RowPass | Made
        if batch.is_self and is_at_once(batch, self.distance):
            sloped = functools.partial(self._sloped, cost)
            costs, narrow = (lambda rows: sloped(rows).all()), is_table_cheaper(batch)
            rows = RowPass(batch, self.distance, costs, sloped=sloped, narrow=narrow)
        else:
            passed, ends = BothEnds.of(batch, self.distance, self._ends)
            rows = Made(passed, (cost(ends).values, ends.threatened))
        return RowTerms("pos_pair", rows, signed=self.signed, labels=batch.labels)

    def _ends(self, rows: Rows) -> tuple[Tensor, ...]:
        return self.threat(rows)[0], rows.d_ap, rows.valid, rows.num_negatives

    def _sloped(self, cost: Cost, rows: Rows) -> Sloped:
        """Of the rows of a whole batch that is compared with itself."""
        own, back = self.threat(rows)
        ends = BothEnds.within(rows, own)
        costs = cost(ends)

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_ap, by_anchor, by_positive = costs.pull(by)
            if rows.is_wide:
                return by_ap, back(by_positive.sum(0).add_(by_anchor.sum(1)))
            return by_ap, back(by_anchor.sum(1).index_add_(0, rows.positives.flatten(), by_positive.flatten()))

        return Sloped((costs.values,), (lambda: ends.threatened,), pull)


def share_of_larger(x: Tensor, y: Tensor) -> Tensor:
    """How much of a gradient by the larger of both goes to ``x``: all, nothing, or of equals one half."""
    return torch.sign(x - y).add_(1).div_(2)
