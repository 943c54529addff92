"""The distances that a miner's rule goes by, a few rows at a time, where the loss has others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.precision import full_precision
from nearfar.nn.selection import distance_matrix
from nearfar_pair.once import once
from nearfar_pair.row_distance import RowDistance, row_distance
from nearfar_pair.sides import SMALL

__all__ = ["RuleDistance"]


class RuleDistance:
    """Called with a slice of anchors, it gives a new tensor of their distances (r, m), small for near.

    Parameters
    ----------
    batch, distance
        Those of the rule.
    blocks
        The anchors that the miner took at a time, one block after another, where others are asked for: a product of
        other matrices may round otherwise, and a rule that ends between two equal numbers would end elsewhere.
    """

    def __init__(self, batch: Batch, distance: Any, blocks: Iterable[slice] = ()) -> None:
        self._batch, self._distance = batch, distance
        self._blocks = tuple(blocks)
        self._last: tuple[slice, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, anchors: slice) -> Tensor:
        with full_precision(self._batch.embeddings):
            if self._rows is None:
                is_whole = anchors == slice(0, len(self._batch.embeddings))
                return distance_matrix(self._distance, self._batch) if is_whole else self._matrix[anchors].clone()
            parts = [self._part(self._rows, block, anchors) for block in self._blocks if _meet(block, anchors)]
            return torch.cat(parts) if parts else self._block(self._rows, anchors)

    def _part(self, rows: RowDistance, block: slice, anchors: slice) -> Tensor:
        """Those of the anchors that are in a block, which is kept for whoever asks for the next."""
        if self._last is None or self._last[0] != block:
            self._last = block, self._block(rows, block)
        first, last = max(block.start, anchors.start), min(block.stop, anchors.stop)
        return self._last[1][first - block.start : last - block.start]

    def _block(self, rows: RowDistance, anchors: slice) -> Tensor:
        size = anchors.stop - anchors.start, rows.width
        return rows.rows(anchors, self._batch.embeddings.new_empty(size))

    @once
    def _rows(self) -> RowDistance | None:
        n, m = len(self._batch.embeddings), len(self._batch.reference)
        if n * m <= SMALL or not row_distance(self._distance):
            return None
        query = self._distance.maybe_normalize(self._batch.embeddings)
        is_self = self._batch.is_self
        return RowDistance(
            self._distance, query, query if is_self else self._distance.maybe_normalize(self._batch.reference)
        )

    @once
    def _matrix(self) -> Tensor:
        return distance_matrix(self._distance, self._batch)


def _meet(block: slice, anchors: slice) -> bool:
    return bool(block.start < anchors.stop and anchors.start < block.stop)
