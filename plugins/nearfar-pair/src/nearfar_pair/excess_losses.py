"""Base class of the losses in which each pair costs by how far its distance is beyond a boundary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar_pair.compiled.pairs import PairLoop
from nearfar_pair.links import HINGE, Link
from nearfar_pair.row_losses import PairLoss, counts_of
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped, SlopedFormula

__all__ = ["ExcessLoss", "Line"]


class Line(NamedTuple):
    """An excess as a function of the distance: ``slope · d + offset``; each a number or a tensor that goes with d."""

    slope: Any
    offset: Any

    def at(self, d: Tensor, out: Tensor | None = None) -> Tensor:
        """The excess of distances: a new tensor, or ``out``."""
        if isinstance(self.slope, Tensor):
            return torch.add(torch.mul(self.slope, d, out=out), self.offset, out=out)
        return torch.add(self.offset, d, alpha=self.slope, out=out)

    def by(self, by_excess: Tensor | None, d: Tensor) -> tuple[Any, Any]:
        """The gradients by slope and offset, of that by the excess; 0 of numbers, and where there is none."""
        if by_excess is None:
            return 0, 0
        by_slope = _summed(by_excess * d, self.slope) if isinstance(self.slope, Tensor) else 0
        return by_slope, _summed(by_excess, self.offset) if isinstance(self.offset, Tensor) else 0


def _summed(by: Tensor, of: Tensor) -> Tensor:
    """The gradient by what was spread over a matrix: a new tensor, also of a matrix of one column."""
    if of.ndim == 0:
        return by.sum()
    return by.clone() if by.shape == of.shape else by.sum_to_size(of.shape)


class ExcessLoss(PairLoss):
    """A loss whose pairs cost by their excess, which is a line of their distance."""

    #: What an excess costs.
    link: Link = HINGE

    @abstractmethod
    def lines(self, *of_anchor: Tensor) -> tuple[Line, Line]:
        """The excess of positive pairs and of negative ones; below zero for what is infinitely near, and far."""

    def by_learned(self, positive: tuple[Any, Any], negative: tuple[Any, Any]) -> tuple[Any, ...]:
        """The gradients by what :meth:`learned` has, of those by the slope and offset of either line."""
        return ()

    @property
    def slopes(self) -> SlopedFormula:
        return self.sloped

    def loop(self, learned: tuple[Tensor, ...]) -> PairLoop | None:
        return PairLoop(self.link.number, self.lines, self.by_learned, learned)

    def positive_cost(self, d: Tensor, *of_anchor: Tensor) -> Tensor:
        return self.link.cost(self.lines(*of_anchor)[0].at(d))

    def negative_cost(self, d: Tensor, *of_anchor: Tensor) -> Tensor:
        return self.link.cost(self.lines(*of_anchor)[1].at(d))

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        lines, distances = self.lines(*self.of_anchors(rows, learned)), (rows.d_ap, rows.d_an)
        sums, active, slopes = zip(*(self._side(rows, side, lines[side]) for side in (0, 1)), strict=True)

        def pull(*by: Any) -> tuple[Any, ...]:
            if not learned:  # one product of what are numbers mostly
                by = tuple(None if g is None else g * line.slope for g, line in zip(by, lines, strict=True))
            # In place where it is asked for once.
            room = (None, None) if rows.scratch is None else slopes
            by_excess = [
                None if g is None else torch.mul(slope, g, out=out)
                for g, slope, out in zip(by, slopes, room, strict=True)
            ]
            if not learned:
                return tuple(by_excess)
            by_lines = [line.by(g, d) for line, g, d in zip(lines, by_excess, distances, strict=True)]
            by_d = [None if g is None else g.mul_(line.slope) for line, g in zip(lines, by_excess, strict=True)]
            by_learned = self.by_learned(*by_lines)
            return *by_d, *(_to(x, g, rows.anchors) for x, g in zip(learned, by_learned, strict=True))

        return Sloped(sums, (*active, *counts_of(rows)), pull)

    def _side(self, rows: Rows, side: int, line: Line) -> tuple[Tensor, Callable[[], Tensor], Tensor]:
        """Of each anchor the sum of one side's costs, and how many are above zero; the slope of each by its excess."""
        scratch, spare = (rows.scratch, rows.spare) if side else (None, None)
        excess = line.at(rows.d_an if side else rows.d_ap, scratch)
        if rows.times is None:
            return self.link.sums(excess, spare)
        times, cost = rows.times[side], self.link.cost(excess)
        *_, slope = self.link.sums(excess, None)
        return (cost * times).sum(1), lambda: ((cost > 0) * times).sum(1).long(), slope * times


def _to(x: Tensor, by: Any, anchors: slice) -> Tensor | None:
    """The gradient by ``x``, of that by the part of it that goes with some anchors."""
    if not isinstance(by, Tensor):
        return None
    if x.ndim != 1:
        return by
    whole = torch.zeros_like(x)
    whole[anchors] = by[:, 0]
    return whole
