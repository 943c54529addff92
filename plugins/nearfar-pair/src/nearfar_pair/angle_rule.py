"""Triplets told by the angle at the negative, of which none is made unless somebody asks for it."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.distances import SquaredEuclidean
from nearfar.nn.precision import full_precision
from nearfar.nn.selection import Selection, check_sizes, warn_if_many
from nearfar_pair.mining import choices
from nearfar_pair.once import once
from nearfar_pair.sides import SMALL, Rows

__all__ = ["AngleRule"]

#: How many elements of angles are looked at at a time where triplets are made.
ELEMENTS = 2**20


class AngleRule(Selection):
    """Triplets of normalised embeddings with ``‖a − p‖ > 2 tan(angle) ‖n − (a + p) / 2‖``.

    Parameters
    ----------
    batch
        The batch the rule is about, with labels.
    angle
        In radians.
    """

    def __init__(self, batch: Batch, angle: float) -> None:
        self.batch = batch
        self.distance = SquaredEuclidean()
        self._tan2 = math.tan(angle) ** 2

    def check(self, batch: int, reference: int) -> None:
        check_sizes(self.batch, batch, reference)

    @torch.no_grad()
    def indices(self) -> tuple[Tensor, Tensor, Tensor]:
        with full_precision(self.batch.embeddings):
            batch = dataclasses.replace(self.batch, selection=None)
            a, p, n = choices(batch, self.distance, self._made, is_ragged=True).outputs
        warn_if_many(len(a))
        return a, p, n

    @torch.no_grad()
    def selected(self, d_ap: Tensor, d_an: Tensor, positives: Tensor) -> Tensor:
        """As of :class:`~nearfar.nn.selection.TripletRule`."""
        # Four times the square of the distance to the middle, from the three sides; rounding may put it below zero.
        middle = self._from_positives(positives).add_(d_an).mul_(2).sub_(d_ap).clamp_min_(0)
        # Not a comparison that is false of NaN: what is not a number must show in the loss.
        return ~(d_ap <= middle.mul_(self._tan2))

    def _made(self, rows: Rows) -> tuple[Tensor, ...]:
        """The triplets of these anchors, one by one."""
        anchor, place = torch.where(rows.valid)
        positive, is_negative = rows.positives[anchor, place], rows.is_negative
        parts: list[tuple[Tensor, Tensor]] = []
        step = max(1, ELEMENTS // rows.d_an.shape[1])
        for start in range(0, max(1, len(anchor)), step):
            a, k = (x[start : start + step] for x in (anchor, place))
            selected = self.selected(rows.d_ap[a, k][:, None], rows.d_an[a], positive[start : start + step])
            pair, n = torch.where(selected & is_negative[a])
            parts.append((pair + start, n))
        pair, n = (torch.cat(column) for column in zip(*parts, strict=True))
        return anchor[pair] + rows.anchors.start, positive[pair], n

    def _from_positives(self, positives: Tensor) -> Tensor:
        """(t, m) squared distances of these references to all, in a tensor of their own."""
        if self._matrix is not None:
            return self._matrix.index_select(0, positives)
        return self.distance.matrix(self._reference.index_select(0, positives), self._reference)

    @once
    def _reference(self) -> Tensor:
        return self.distance.maybe_normalize(self.batch.reference)

    @once
    def _matrix(self) -> Tensor | None:
        return self.distance(self.batch.reference) if len(self.batch.reference) ** 2 <= SMALL else None
