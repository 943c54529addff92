"""Triplets with a wide angle at the negative.

Wang, Zhou, Wen, Liu, Lin (2017): Deep Metric Learning with Angular Loss. arXiv:1708.01682.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import finite
from nearfar.nn.batch import Batch
from nearfar.nn.distances import SquaredEuclidean
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection, warn_if_many

__all__ = ["Angular"]


class Angular(Miner):
    r"""Triplets whose negative sees anchor and positive under a wide angle.

    .. math:: \lVert a - p \rVert > 2 \tan\alpha\, \lVert n - c \rVert, \qquad c = \tfrac12 (a + p)

    Embeddings are normalised.

    Parameters
    ----------
    angle : float
        [radians, 0..1.57] The angle α, short of a right one; by default the 20 degrees of pytorch-metric-learning. The
        paper's loss has 36 to 55 degrees.

    Raises
    ------
    ArgumentError
        The angle is out of its range.

    Notes
    -----
    The distance to the middle comes from the three sides, :math:`\lVert n - c \rVert^2 = \tfrac12 \lVert a - n
    \rVert^2 + \tfrac12 \lVert p - n \rVert^2 - \tfrac14 \lVert a - p \rVert^2`, so no embedding is gathered for a
    triplet, and positive pairs are taken by slices.

    Where :math:`n = c` the angle is right, and the triplet is selected; where moreover :math:`a = p` there is none.

    References
    ----------
    Wang et al. (2017), arXiv:1708.01682, section 3.2.
    """

    def __init__(self, angle: float = 0.349) -> None:
        super().__init__()
        if not 0 <= finite("angle", angle) < math.pi / 2:
            raise ArgumentError(f"angle lies in 0..π/2 radians, its upper end left out; got {angle!r}")
        self.angle = float(angle)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        square = SquaredEuclidean()
        from_anchor = square(batch.embeddings) if batch.is_self else square(batch.embeddings, batch.reference)
        from_positive = from_anchor if batch.is_self else square(batch.reference)
        negative = batch.negative_mask()
        anchors, positives = torch.where(batch.positive_mask())
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        # By slices of the positive pairs: a table of every pair by every negative may not fit.
        step = max(1, 2**22 // max(1, from_anchor.shape[1]))
        for start in range(0, len(anchors), step):
            a, p = anchors[start : start + step], positives[start : start + step]
            opposite = from_anchor[a, p][:, None]
            # Four times the square of the distance to the middle; rounding may put it below zero.
            middle = (2 * from_anchor[a] + 2 * from_positive[p] - opposite).clamp_min(0)
            # Not a comparison that is false of NaN: what is not a number must show in the loss.
            pair, n = torch.where(~(opposite <= math.tan(self.angle) ** 2 * middle) & negative[a])
            found.append((a[pair], p[pair], n))
        if not found:
            return IndexSelection((anchors, positives, anchors))
        a, p, n = (torch.cat(parts) for parts in zip(*found, strict=True))
        warn_if_many(len(a))
        return IndexSelection((a, p, n))

    def extra_repr(self) -> str:
        return f"angle={self.angle}"
