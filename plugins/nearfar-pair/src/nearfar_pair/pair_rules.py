"""Rules on distances by which miners choose pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar_pair.row_pass import RowPass
from nearfar_pair.sides import PairRule, Rows

__all__ = ["WithinReach"]


class WithinReach(PairRule):
    """The positives farther than the nearest negative less a margin, the negatives nearer than the farthest positive
    and the margin.

    Parameters
    ----------
    batch, distance
        As for :class:`~nearfar_pair.sides.PairRule`.
    margin
        In units of the distance.
    """

    def __init__(self, batch: Batch, distance: Any, margin: float) -> None:
        super().__init__(batch, distance)
        self.margin = margin

    def keep(self, d_ap: Tensor, d_an: Tensor) -> tuple[Tensor, Tensor]:
        nearest, farthest = d_an.amin(1, keepdim=True), d_ap.amax(1, keepdim=True)
        return d_ap > nearest - self.margin, d_an < farthest + self.margin

    @torch.no_grad()
    def indices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        def kept(rows: Rows) -> tuple[Tensor, Tensor]:
            keep_ap, keep_an = self.keep(rows.d_ap, rows.d_an)
            return rows.valid & keep_ap, rows.is_negative & keep_an

        rows = RowPass(self.batch, self.distance, kept)
        positive, negative = rows.outputs
        a1, place = torch.where(positive)
        a2, n = torch.where(negative)
        return a1, rows.table[0][a1, place], a2, n
