"""Terms of losses whose value for an anchor is a formula of its row of distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nearfar.nn.terms import Terms
from nearfar_pair.once import once
from nearfar_pair.row_pass import RowPass
from nearfar_pair.row_plan import Formula

__all__ = ["Made", "PairSide", "RowTerms"]


class Pass(Protocol):
    """What goes through the positives of every anchor."""

    @property
    def num_anchors(self) -> int:
        """How many there are."""

    @property
    def table(self) -> tuple[Tensor, Tensor]:
        """(n, k) the positives of each anchor, and which of them there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """Costs of every anchor's positives that were made from the outputs of a pass, in its place.

    Attributes
    ----------
    rows
        The pass, of which only its size and its table of positives are asked.
    outputs
        The costs (n, k), 0 where there is none, and which there are, boolean.
    """

    rows: Pass
    outputs: tuple[Tensor, ...]

    @property
    def num_anchors(self) -> int:
        return self.rows.num_anchors

    @property
    def table(self) -> tuple[Tensor, Tensor]:
        return self.rows.table

    @property
    def totals(self) -> tuple[Tensor, ...]:
        return self.outputs[0].sum(), *self.outputs

    @property
    def found(self) -> tuple[Tensor, ...]:
        return self.outputs


class RowTerms(Terms):
    """The costs that a formula gives: one for each anchor, or one for each positive of each anchor.

    Parameters
    ----------
    kind
        ``element`` for costs (n,), ``pos_pair`` for costs (n, k), one for each place of the table of positives.
    rows
        A pass whose first two outputs are the costs, 0 where there is none, and which there are, boolean.
    signed
        Whether a cost can be below zero.
    is_full
        Whether every anchor has a cost.
    normalizer, labels
        As in :class:`~nearfar.nn.terms.Terms`.
    """

    def __init__(
        self,
        kind: str,
        rows: RowPass | Made,
        *,
        signed: bool = False,
        is_full: bool = False,
        normalizer: Tensor | float | None = None,
        labels: Tensor | None = None,
    ) -> None:
        self.kind = kind
        self.num_anchors = rows.num_anchors
        self.normalizer = normalizer
        self.labels = labels
        self._rows = rows
        self._signed, self._is_full = signed, is_full

    @property
    def values(self) -> Tensor:
        return self._costs[self._mask]

    @property
    def indices(self) -> tuple[Tensor, ...]:
        if self.kind == "element":
            return torch.where(self._mask)
        anchors, places = torch.where(self._mask)
        return anchors, self._rows.table[0][anchors, places]

    @property
    def size(self) -> int | None:
        return self.num_anchors if self._is_full else None

    def sum(self) -> Tensor:
        return self._rows.totals[0]

    def sum_positive(self) -> Tensor:
        return self._costs.clamp_min(0).sum() if self._signed else self.sum()

    def count(self) -> Tensor:
        return self._there.sum()

    def count_positive(self) -> Tensor:
        return (self._rows.found[0] > 0).sum()

    def sum_by_anchor(self) -> Tensor:
        return self._costs if self._costs.ndim == 1 else self._costs.sum(1)

    def count_by_anchor(self) -> Tensor:
        return self._there.long() if self._there.ndim == 1 else self._there.sum(1)

    @once
    def _costs(self) -> Tensor:
        return self._rows.outputs[0]

    @property
    def _there(self) -> Tensor:
        """Which costs there are, or of whom nobody asked which, how many of each anchor."""
        return self._rows.found[1]

    @property
    def _mask(self) -> Tensor:
        there = self._there
        return there if there.dtype == torch.bool else self._rows.outputs[1]


class PairSide(Terms):
    """The costs of all positive pairs, or of all negative ones; summed, none of them is made.

    Parameters
    ----------
    kind
        ``pos_pair`` or ``neg_pair``.
    rows
        A pass whose outputs are, of positives and negatives: the sum of each anchor's costs, twice; how many cost
        something, twice; how many there are, twice. Both sides share one.
    every
        A formula of the costs of every pair, (n, k) and (n, m), for whoever wants them.
    normalizer, labels
        As in :class:`~nearfar.nn.terms.Terms`.
    """

    def __init__(
        self,
        kind: str,
        rows: RowPass,
        every: Formula,
        *,
        normalizer: Tensor | float | None = None,
        labels: Tensor | None = None,
    ) -> None:
        self.kind = kind
        self.num_anchors = rows.num_anchors
        self.normalizer = normalizer
        self.labels = labels
        self._rows, self._every = rows, every
        self._side = 0 if kind == "pos_pair" else 1

    @property
    def values(self) -> Tensor:
        return self._material[0]

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return self._material[1]

    def sum(self) -> Tensor:
        return self._rows.totals[self._side]

    def sum_positive(self) -> Tensor:
        return self.sum()  # no cost of a pair is negative

    def sum_by_anchor(self) -> Tensor:
        return self._rows.outputs[self._side]

    def count_positive(self) -> Tensor:
        return self._rows.found[self._side + 2].sum()

    def count(self) -> Tensor:
        return self.count_by_anchor().sum()

    def count_by_anchor(self) -> Tensor:
        return self._rows.found[self._side + 4]

    @once
    def _material(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        rows, (positive, negative) = self._rows.whole(self._every)
        if self.kind == "pos_pair":
            anchors, places = torch.where(rows.valid)
            values, others = positive[anchors, places], rows.positives[anchors, places]
        else:
            anchors, places = torch.where(rows.is_negative)
            values, others = negative[anchors, places], places
        if rows.times is not None:
            times = rows.times[self._side][anchors, places].long()
            values, anchors, others = (x.repeat_interleave(times) for x in (values, anchors, others))
        return values, (anchors, others)
