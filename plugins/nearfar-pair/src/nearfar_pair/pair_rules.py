"""Rules by which miners choose pairs, which a loss on the same distance applies while it sums."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance
from nearfar.nn.precision import full_precision
from nearfar.nn.selection import check_sizes, distance_matrix
from nearfar_pair.mask_sides import sides_of
from nearfar_pair.mining import choices
from nearfar_pair.sides import FAR, SMALL, PairRule, Rows

__all__ = ["BesideOpposite", "DistanceRule", "Margins"]


class DistanceRule(PairRule):
    """A rule on the pairs of a batch by label, whose indices are made where a loss asks for them.

    Parameters
    ----------
    batch
        The batch the rule is about, with labels.
    distance
        What d is; for a similarity s, ``d = −s``.
    """

    distance: Distance

    def check(self, batch: int, reference: int) -> None:
        check_sizes(self.batch, batch, reference)

    @torch.no_grad()
    def indices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(anchor, positive, anchor, negative)``, each sort by anchor and then by place in the reference."""
        with full_precision(self.batch.embeddings):
            sides = sides_of(self.batch)
            if sides.masks is not None and sides.shape[0] * sides.shape[1] <= SMALL:
                rows = sides.whole(distance_matrix(self.distance, self.batch))
                keep_ap, keep_an = self.keep(rows)
                a1, p = torch.where(keep_ap & rows.valid)
                a2, n = torch.where(keep_an.masked_fill(sides.masks[1], False))
                return a1, p, a2, n
            batch = dataclasses.replace(self.batch, selection=self)
            return choices(batch, self.distance, _kept, narrow=False, is_ragged=True).outputs  # type: ignore[return-value]


def _kept(rows: Rows) -> tuple[Tensor, ...]:
    """The pairs of these anchors, one by one."""
    a1, place = torch.where(rows.valid)
    a2, n = torch.where(rows.is_negative)
    start = rows.anchors.start
    return a1 + start, rows.positives[a1, place], a2 + start, n


class BesideOpposite(DistanceRule):
    """Negatives nearer than the farthest positive, positives farther than the nearest negative, give or take ``slack``.

    Parameters
    ----------
    batch, distance
        As of :class:`DistanceRule`.
    slack
        In units of the distance.
    """

    def __init__(self, batch: Batch, distance: Distance, slack: float) -> None:
        super().__init__(batch, distance)
        self.slack = slack

    def keep(self, rows: Rows) -> tuple[Tensor, Tensor]:
        farthest, nearest = rows.d_ap.amax(1, keepdim=True), rows.d_an.amin(1, keepdim=True)
        # Not comparisons that are false of NaN: what is not a number must show in the loss.
        return ~(nearest - rows.d_ap >= self.slack), ~(rows.d_an - farthest >= self.slack)

    def choose(self, rows: Rows, scratch: Tensor) -> tuple[Tensor, Tensor]:
        farthest, nearest = rows.d_ap.amax(1, keepdim=True), rows.d_an.amin(1, keepdim=True)
        beyond = torch.sub(rows.d_an, farthest, out=scratch)
        return ~(nearest - rows.d_ap >= self.slack), torch.ge(beyond, min(self.slack, FAR / 2), out=scratch)


class Margins(DistanceRule):
    """Positives farther than one distance, negatives nearer than another.

    Parameters
    ----------
    batch, distance
        As of :class:`DistanceRule`.
    beyond, within
        In units of the distance, those of a similarity as they are.
    """

    def __init__(self, batch: Batch, distance: Distance, beyond: float, within: float) -> None:
        super().__init__(batch, distance)
        sign = -1.0 if distance.is_inverted else 1.0
        self.beyond, self.within = sign * beyond, sign * within

    def keep(self, rows: Rows) -> tuple[Tensor, Tensor]:
        # Not comparisons that are false of NaN: what is not a number must show in the loss.
        return ~(rows.d_ap <= self.beyond), ~(rows.d_an >= self.within)

    def choose(self, rows: Rows, scratch: Tensor) -> tuple[Tensor, Tensor]:
        return ~(rows.d_ap <= self.beyond), torch.ge(rows.d_an, min(self.within, FAR / 2), out=scratch)
