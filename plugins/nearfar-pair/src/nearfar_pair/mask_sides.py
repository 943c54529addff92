"""Positives and negatives of every anchor where no class ids tell them, but masks, a few anchors at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar_pair.sides import FAR, SMALL, PairRule, Sides

__all__ = ["sides_of"]

#: How many elements of masks are made at a time: with their products a few MB.
ELEMENTS = 2**20


def sides_of(
    batch: Batch,
    rule: PairRule | None = None,
    *,
    narrow: bool = False,
    measured: Callable[[slice], Tensor] | None = None,
) -> Sides:
    """The positives and negatives of every anchor: by class ids, by masks, or those selected; as for :class:`Sides`."""
    if rule is not None:
        batch = rule.batch
    if batch.relation is None or (batch.selection is not None and rule is None):
        return Sides(batch, rule, narrow=narrow, measured=measured)
    return _MaskSides(batch, rule, narrow=narrow, measured=measured)


class _MaskSides(Sides):
    """Sides by the masks of a batch; there is no order that puts those of a class side by side."""

    def __init__(
        self, batch: Batch, rule: PairRule | None, *, narrow: bool, measured: Callable[[slice], Tensor] | None
    ) -> None:
        self.shape = n, m = len(batch.embeddings), len(batch.reference)
        self.device = batch.embeddings.device
        self._batch, self._rule, self._is_self = batch, rule, batch.is_self
        self._measured = measured
        self._narrow = narrow or n * m > SMALL or not m
        # Of those by label an anchor has a place among its own positives, which these never have.
        self._by_label = not self._narrow
        if self._narrow:
            self._from_masks()
        else:
            self._none, self._same = ~batch.positive_mask(), ~batch.negative_mask()
        self.width = max(1, int(self._positives.max()) if self._narrow and n else m)

    def _from_masks(self) -> None:
        n, m = self.shape
        step = max(1, ELEMENTS // max(1, m))
        none = torch.zeros(0, dtype=torch.int64, device=self.device)
        order, positives, negatives = [none], [none], [none]
        for start in range(0, n, step):
            anchors = slice(start, min(start + step, n))
            mask = self._batch.positive_mask(anchors)
            order.append(torch.where(mask)[1])
            positives.append(mask.sum(1))
            negatives.append(self._batch.negative_mask(anchors).sum(1))
        self._order, self._positives, self._negatives = (torch.cat(x) for x in (order, positives, negatives))
        self._first = self._positives.cumsum(0) - self._positives

    def far_unless_any(self, d: Tensor) -> Tensor:
        return d.masked_fill(self._none & self._same, FAR)

    def _far_unless_negative(self, d: Tensor, anchors: slice, index: Tensor, valid: Tensor, in_place: bool) -> Tensor:
        if not self._narrow:
            return super()._far_unless_negative(d, anchors, index, valid, in_place)
        if not self.shape[1]:  # the one far reference that stands where there is none
            return d
        none = ~self._batch.negative_mask(anchors)
        return d.masked_fill_(none, FAR) if in_place else d.masked_fill(none, FAR)
