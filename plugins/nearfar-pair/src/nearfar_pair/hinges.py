"""The hinges of all triplets of an anchor, summed from its row of distances."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar_pair.sides import FAR, Rows
from nearfar_pair.sloped import Sloped

__all__ = ["Hinges", "as_it_is"]

#: How many triplets are looked at at a time, where one positive of each anchor has no more.
ELEMENTS = 2**15


def as_it_is(d: Tensor) -> Tensor:
    """The distance itself."""
    return d


@dataclass(frozen=True, slots=True)
class Hinges:
    """Of each anchor the sum of ``margin − gap`` where that is above zero, over its triplets.

    The gap of a triplet is d(a, n) − d(a, p); of those with ``lower < gap <= upper``. Every decision is that of
    :meth:`~nearfar.nn.selection.TripletRule.holds` and of the hinge itself on the rounded gap, negated, which is exact,
    so that ties fall as they do for triplets that are made.

    Called with :class:`~nearfar_pair.sides.Rows` it gives the sums (r,), differentiable; how many of the triplets cost
    something; and how many there are by label, wherever the gap is; (r,) int64.

    Attributes
    ----------
    margin, lower, upper
        In units of the distance, or of what is made of it.
    shape, slope
        An increasing function of d that takes its place, and the slope of that; it leaves what is far where it is.
    """

    margin: float
    lower: float = -math.inf
    upper: float = math.inf
    shape: Callable[[Tensor], Tensor] = as_it_is
    slope: Callable[[Tensor], Tensor] | None = None

    def __call__(self, rows: Rows) -> tuple[Tensor, ...]:
        return self.sloped(rows).all()

    def sloped(self, rows: Rows) -> Sloped:
        """The same with its slopes: a triplet that costs adds 1 to that of d(a, p) and takes 1 from that of d(a, n)."""
        place, d_ap = _positives(rows)
        x_ap, x_an = self.shape(d_ap), self.shape(rows.d_an)
        of_ap, of_an = self._tallied(x_ap.detach(), x_an.detach(), rows.scratch, self._that_cost)
        # In float64, as of a few small costs the distances are many times the sum.
        sums = (of_ap * (x_ap.double() + self.margin)).sum(1) - (of_an * x_an).sum(1)

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_ap, by_an = of_ap * by, of_an * -by if rows.scratch is None else of_an.mul_(-by)
            if self.slope is not None:
                by_ap, by_an = by_ap.mul_(self.slope(d_ap)), by_an.mul_(self.slope(rows.d_an))
            return by_ap if place is None else torch.zeros_like(rows.d_ap).scatter_(1, place, by_ap), by_an

        others = (
            lambda: of_ap.sum(1, dtype=torch.float64).long(),  # float32 counts to 2²⁴
            lambda: rows.num_positives * rows.num_negatives,
        )
        return Sloped((sums.to(d_ap.dtype),), others, pull)

    def selected(self, rows: Rows) -> tuple[Tensor]:
        """(r,) how many triplets have their gap in the interval, int64."""
        d_ap, d_an = self.shape(_positives(rows)[1]), self.shape(rows.d_an)
        return (self._tallied(d_ap, d_an, rows.scratch, self._that_count)[0].sum(1, dtype=torch.float64).long(),)

    @property
    def selects_all(self) -> bool:
        """Whether the interval leaves no triplet out."""
        return self.lower == -math.inf and self.upper == math.inf

    def _that_cost(self, gap: Tensor) -> Tensor:
        """1 for each negated gap of a triplet that costs something, else 0; what is far costs nothing."""
        ends = [(torch.gt, -self.margin)]
        if self.lower > -math.inf:
            ends.append((torch.lt, -self.lower))
        if self.upper < self.margin:  # beyond the margin nothing costs
            ends.append((torch.ge, -self.upper))
        return _within(gap, ends)

    def _that_count(self, gap: Tensor) -> Tensor:
        """1 for each negated gap in the interval, else 0."""
        ends = [(torch.ge, -min(self.upper, FAR / 2))]  # what is far is within no finite end
        if self.lower > -math.inf:
            ends.append((torch.lt, -self.lower))
        return _within(gap, ends)

    @staticmethod
    @torch.no_grad()
    def _tallied(
        d_ap: Tensor, d_an: Tensor, scratch: Tensor | None, that: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(r, k) and (r, m) of how many triplets each positive and each reference is, of those that are asked for."""
        of_ap, of_an = torch.empty_like(d_ap), torch.empty_like(d_an) if scratch is None else scratch
        step = max(1, ELEMENTS // max(1, d_an.numel()))
        for start in range(0, d_ap.shape[1], step):
            found = that(d_ap[:, start : start + step, None] - d_an[:, None])
            torch.sum(found, 2, out=of_ap[:, start : start + step])
            by_reference = found[:, 0] if found.shape[1] == 1 else found.sum(1)
            of_an = of_an.add_(by_reference) if start else of_an.copy_(by_reference)
        return of_ap, of_an


def _within(gap: Tensor, ends: list[tuple[Callable[..., Tensor], float]]) -> Tensor:
    """1 where all comparisons hold, else 0: numbers, in place, as masks cost ten times as much."""
    *others, (compare, end) = ends
    kept = [compare(gap, end, out=torch.empty_like(gap)) for compare, end in others]
    found = compare(gap, end, out=gap)
    for each in kept:
        found *= each
    return found


def _positives(rows: Rows) -> tuple[Tensor | None, Tensor]:
    """The distances (r, k) of the positives, and where a wide table has them; None where it is no wider than that."""
    if not rows.is_wide:
        return None, rows.d_ap
    width = int(rows.num_positives.max()) if len(rows.d_ap) else 0
    place = rows.d_ap.detach().topk(max(1, width), 1, sorted=False).indices
    return place, rows.d_ap.gather(1, place)
