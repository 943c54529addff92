"""The pairs of the triplets a rule selects, for losses on pairs; no triplet is made."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.nn.selection import TripletRule
from nearfar_pair.sides import FAR, PairRule

__all__ = ["TripletPairs", "selects_all"]

#: How many elements of gaps are looked at at a time.
ELEMENTS = 2**18


class TripletPairs(PairRule):
    """Of each triplet a positive and a negative pair, so that a pair counts once for each triplet it is in.

    Parameters
    ----------
    rule
        Which triplets.
    """

    def __init__(self, rule: TripletRule) -> None:
        super().__init__(rule.batch, rule.distance)
        self._rule = rule

    def indices(self) -> tuple[Tensor, ...]:
        return self._rule.indices()

    def keep(self, d_ap: Tensor, d_an: Tensor) -> tuple[Tensor, Tensor]:
        of_ap, of_an = self.times(d_ap, d_an)
        return of_ap > 0, of_an > 0

    @torch.no_grad()
    def times(self, d_ap: Tensor, d_an: Tensor) -> tuple[Tensor, Tensor]:
        is_positive, is_negative = d_ap != -FAR, d_an != FAR
        if selects_all(self._rule):
            negatives, positives = (mask.sum(1, keepdim=True).to(d_ap) for mask in (is_negative, is_positive))
            return is_positive * negatives, is_negative * positives
        of_ap, of_an = torch.zeros_like(d_ap), torch.zeros_like(d_an)
        step = max(1, ELEMENTS // max(1, d_an.numel()))
        for start in range(0, d_ap.shape[1], step):
            some = slice(start, start + step)
            selected = self._rule.holds(d_an[:, None] - d_ap[:, some, None])
            selected &= is_negative[:, None] & is_positive[:, some, None]
            of_ap[:, some] = selected.sum(2).to(d_ap)
            of_an += selected.sum(1)
        return of_ap, of_an


def selects_all(rule: object) -> bool:
    """Whether a selection is the rule of every triplet, on which distances decide nothing."""
    return isinstance(rule, TripletRule) and rule.lower == -math.inf and rule.upper == math.inf
