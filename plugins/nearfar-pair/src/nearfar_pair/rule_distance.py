"""The distances that a miner's rule goes by, a few rows at a time, where the loss has others."""

from __future__ import annotations

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
    """

    def __init__(self, batch: Batch, distance: Any) -> None:
        self._batch, self._distance = batch, distance

    @torch.no_grad()
    def __call__(self, anchors: slice) -> Tensor:
        with full_precision(self._batch.embeddings):
            if self._rows is None:
                return self._matrix[anchors].clone()
            like = self._batch.embeddings
            size = anchors.stop - anchors.start, self._rows.width
            return self._rows.rows(anchors, like.new_empty(size))

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
