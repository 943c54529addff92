"""The pairs of the triplets a rule selects, for losses on pairs; no triplet is made."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.selection import TripletRule
from nearfar_pair.sides import PairRule, Rows

__all__ = ["Rule", "TripletPairs", "Triplets", "selects_all"]

#: How many elements of gaps are looked at at a time.
ELEMENTS = 2**18


class Rule(Protocol):
    """A choice that goes by the distances of a batch."""

    @property
    def batch(self) -> Batch:
        """What the rule is about, with labels."""

    @property
    def distance(self) -> Any:
        """What d is."""


@runtime_checkable
class Triplets(Rule, Protocol):
    """A rule on the distances of a batch that tells the negatives of every positive pair."""

    def indices(self) -> tuple[Tensor, ...]:
        """The triplets, made one by one."""

    def selected(self, d_ap: Tensor, d_an: Tensor, positives: Tensor) -> Tensor:
        """As of :class:`~nearfar.nn.selection.TripletRule`."""


class TripletPairs(PairRule):
    """Of each triplet a positive and a negative pair, so that a pair counts once for each triplet it is in.

    Parameters
    ----------
    rule
        Which triplets.
    """

    def __init__(self, rule: Triplets) -> None:
        super().__init__(rule.batch, rule.distance)
        self._rule = rule

    def indices(self) -> tuple[Tensor, ...]:
        return self._rule.indices()

    def keep(self, rows: Rows) -> tuple[Tensor, Tensor]:
        of_ap, of_an = self.times(rows)
        return of_ap > 0, of_an > 0

    @torch.no_grad()
    def times(self, rows: Rows) -> tuple[Tensor, Tensor]:
        d_ap, d_an, is_negative = rows.d_ap, rows.d_an, rows.is_negative
        if selects_all(self._rule):
            negatives, positives = (mask.sum(1, keepdim=True).to(d_ap) for mask in (is_negative, rows.valid))
            return rows.valid * negatives, is_negative * positives
        of_ap, of_an = torch.zeros_like(d_ap), torch.zeros_like(d_an)
        anchor, place = torch.where(rows.valid)
        step = max(1, ELEMENTS // max(1, d_an.shape[1]))
        for start in range(0, len(anchor), step):
            a, k = anchor[start : start + step], place[start : start + step]
            selected = self._rule.selected(d_ap[a, k][:, None], d_an[a], rows.positives[a, k])
            selected &= is_negative[a]
            of_ap[a, k] = selected.sum(1).to(d_ap)
            of_an.index_add_(0, a, selected.to(d_an))
        return of_ap, of_an


def selects_all(rule: object) -> bool:
    """Whether a selection is the rule of every triplet, on which distances decide nothing."""
    return isinstance(rule, TripletRule) and rule.lower == -math.inf and rule.upper == math.inf
