"""The hardest triplet of each anchor: a selection, and what it costs, found in one row of distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.precision import full_precision
from nearfar.nn.selection import Selection, check_sizes
from nearfar_pair.arithmetic import first_least
from nearfar_pair.compiled.hardest import KERNELS, hardest
from nearfar_pair.compiled.tier import fits
from nearfar_pair.compiled.work import Work
from nearfar_pair.mining import choices
from nearfar_pair.once import once
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped

__all__ = ["HardestCosts", "HardestTriplets"]


class HardestTriplets(Selection):
    """Of each anchor its farthest positive and its nearest negative, the first of equals.

    Parameters
    ----------
    batch
        The batch it is about, with labels.
    distance
        What d is; for a similarity s, ``d = −s``.
    """

    def __init__(self, batch: Batch, distance: Any) -> None:
        self.batch, self.distance = batch, distance

    def check(self, batch: int, reference: int) -> None:
        check_sizes(self.batch, batch, reference)

    def indices(self) -> tuple[Tensor, ...]:
        return self._indices

    @once
    def _indices(self) -> tuple[Tensor, ...]:
        with torch.no_grad(), full_precision(self.batch.embeddings):
            if fits(self.batch, self.distance, (), KERNELS[:1]):
                places = hardest(Work(self.batch, self.distance))
                (anchor,) = torch.where(places[:, 0] >= 0)
                return anchor, *places[anchor].T.contiguous()
            farthest, nearest, has_both = choices(self.batch, self.distance, _found, narrow=False).outputs
            anchor = torch.where(has_both)[0]
            return anchor, farthest[anchor], nearest[anchor]


@dataclass(frozen=True, slots=True)
class HardestCosts:
    """What the hardest triplet of each anchor costs, (r,), differentiable, 0 where there is none; and which have one.

    Attributes
    ----------
    of
        What a triplet costs whose anchor is this much farther from the positive than from the negative, nothing where
        that is −FAR.
    slope
        How fast that grows.
    """

    of: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]

    def __call__(self, rows: Rows) -> tuple[Tensor, ...]:
        return self.sloped(rows).all()

    def sloped(self, rows: Rows) -> Sloped:
        """The same with its slopes."""
        p, n = _places(rows)
        excess = rows.d_ap.gather(1, p) - rows.d_an.gather(1, n)

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            weight = self.slope(excess) * by
            by_ap, by_an = torch.zeros_like(rows.d_ap), torch.zeros_like(rows.d_an)
            return by_ap.scatter_(1, p, weight), by_an.scatter_(1, n, -weight)

        return Sloped((self.of(excess)[:, 0],), (lambda: rows.has_both,), pull)


def _places(rows: Rows) -> tuple[Tensor, Tensor]:
    """(r, 1) the place of the farthest positive in the table, and that of the nearest negative."""
    return first_least(-rows.d_ap), first_least(rows.d_an)


def _found(rows: Rows) -> tuple[Tensor, ...]:
    """(r,) the farthest positive of each anchor and its nearest negative, and whether it has both."""
    p, n = _places(rows)
    return rows.positives.gather(1, p)[:, 0], n[:, 0], rows.has_both
