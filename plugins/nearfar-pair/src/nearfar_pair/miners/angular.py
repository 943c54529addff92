"""Triplets with a wide angle at the negative.

Wang, Zhou, Wen, Liu, Lin (2017): Deep Metric Learning with Angular Loss. arXiv:1708.01682.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import finite
from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar_pair.angle_rule import AngleRule

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
    triplet. A loss applies the rule to a few anchors at a time; whoever asks for index tensors gets every triplet.

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

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> AngleRule:
        return AngleRule(batch, self.angle)

    def extra_repr(self) -> str:
        return f"angle={self.angle}"
