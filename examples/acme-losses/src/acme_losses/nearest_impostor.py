"""The miner ``nearest_impostor``."""

from __future__ import annotations

import math
from typing import Any

import torch
from nearfar.nn import Batch, IndexSelection, Miner
from torch import nn

__all__ = ["NearestImpostor"]


class NearestImpostor(Miner):
    """Every positive pair with the anchor's nearest negative.

    Parameters
    ----------
    distance : nn.Module, optional
        What near means; unset, that of the loss, and Euclidean without one.
    """

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        far = -math.inf if distance.is_inverted else math.inf
        matrix = distance(batch.embeddings, batch.reference).masked_fill(~batch.negative_mask(), far)
        a, p = torch.where(batch.positive_mask() & batch.negative_mask().any(1, keepdim=True))
        if not len(a):
            return IndexSelection((a, p, p))
        return IndexSelection((a, p, distance.smallest_dist(matrix, dim=1).indices[a]))
