"""One semi-hard negative for each positive pair.

Schroff, Kalenichenko, Philbin (2015): FaceNet: A Unified Embedding for Face Recognition and Clustering.
arXiv:1503.03832, section 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection, distance_matrix

__all__ = ["SemiHardOne"]


class SemiHardOne(Miner):
    r"""For each positive pair the nearest negative beyond it.

    .. math:: (a,\ p,\ \arg\min_{n:\, d(a, n) > d(a, p)} d(a, n))

    Parameters
    ----------
    distance : nn.Module, optional
        What d is, a similarity being negated; unset, that of the loss, and Euclidean without one.

    Notes
    -----
    At most one triplet a positive pair, by anchor and positive; a pair with no negative beyond it has none. Of equally
    near ones the first in the batch is taken. No margin is needed: where the nearest lies beyond the margin, so do the
    others, and a hinge costs nothing.

    Deviation: the paper does not say which of the semi-hard negatives is taken; the nearest costs the most.

    References
    ----------
    Schroff et al. (2015), arXiv:1503.03832, equation 4.
    """

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        matrix = distance_matrix(distance, batch)
        negative = batch.negative_mask()
        if not matrix.numel():  # nothing to gather from
            none = torch.empty(0, dtype=torch.int64, device=matrix.device)
            return IndexSelection((none, none, none))
        # What is not a number must show in the loss: such a positive is near, such a negative far, and both are taken.
        unknown = matrix.isnan()
        far = matrix.masked_fill(unknown, torch.finfo(matrix.dtype).max)
        # A row's negatives in order, then infinity: the first beyond a positive is found by bisection.
        ordered, place = far.masked_fill_(~negative, float("inf")).sort(dim=1, stable=True)
        beyond = torch.searchsorted(ordered, matrix.masked_fill(unknown, -float("inf")), right=True)
        chosen = place.gather(1, beyond.clamp_max_(matrix.shape[1] - 1))
        anchor, positive = torch.where(batch.positive_mask() & negative.gather(1, chosen))
        return IndexSelection((anchor, positive, chosen[anchor, positive]))
