"""Triplet loss with an angular margin.

Deng, Guo, Yang, Xue, Kotsia, Zafeiriou (2019): ArcFace: Additive Angular Margin Loss for Deep Face Recognition.
arXiv:1801.07698.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import within
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.reducers import AvgNonZero
from nearfar.nn.terms import Terms
from nearfar_pair.sides import FAR
from nearfar_pair.triplet_terms import TripletCost, triplet_terms

__all__ = ["ArcFaceTriplet"]

#: How many times the spacing of numbers at 1 a cosine may be off by.
ROUNDING = 4


class ArcFaceTriplet(EmbeddingLoss):
    r"""A negative at a larger angle to the anchor than a positive, by a margin.

    .. math:: L(a, p, n) = [\theta_{ap} - \theta_{an} + m]_+, \qquad \cos \theta_{ax} = s_{ax}

    Parameters
    ----------
    margin : float
        [radians, 0..3.141592653589793] m; 0.5, that of ArcFace, as the paper gives none for its triplets.
    distance : nn.Module, optional
        Cosine similarity, by default and on purpose: the angle is that of a cosine.
    reducer : nn.Module, optional
        By default the mean over the triplets that cost something.

    Raises
    ------
    ArgumentError
        The margin is out of its range.

    Notes
    -----
    Terms are ``triplet``. Without a miner it looks at every triplet; as for ``triplet`` none of them is
    made unless a reducer asks for the values one by one. A miner that takes its margin from the loss compares cosines
    with it, so give it one of its own: ``arcface_triplet(miner=semihard(margin=0.2))``. At an angle of 0 or π, as near
    as a cosine tells (0.001 in float32), no gradient passes: that of the angle has no end there.

    References
    ----------
    Deng et al. (2019), arXiv:1801.07698, section 3.2, "Triplet-Loss".
    """

    def __init__(
        self, margin: float = 0.5, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = within("margin", margin, 0, math.pi, "radians")

    def default_distance(self) -> Distance:
        return Cosine()

    def default_reducer(self) -> nn.Module:
        return AvgNonZero()

    def terms(self, batch: Batch) -> Terms:
        # A rule that chooses by cosines is applied to cosines: angles are another distance.
        return triplet_terms(batch, self.distance, TripletCost(self.margin, shape=_angle, slope=_slope))

    def extra_repr(self) -> str:
        return f"margin={self.margin}"


def _angle(d: Tensor) -> Tensor:
    """The angle of which d is the negative cosine; what is far stays far."""
    angle: Tensor = _Angle.apply(d)
    return angle


class _Angle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, d: Tensor) -> Tensor:
        ctx.save_for_backward(d)
        return torch.where(d.abs() == FAR, d, torch.acos(-d.clamp(-1, 1)))

    @staticmethod
    def backward(ctx: Any, by_angle: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        return by_angle * _slope(d)


def _slope(d: Tensor) -> Tensor:
    """How fast the angle grows with d; 0 where there is no angle, and where it has no slope, as of one point twice."""
    # By rounding the cosine of a point with itself is a little below 1 or above, and the slope is anything.
    has_slope = 1 - d.abs() > ROUNDING * torch.finfo(d.dtype).eps
    # Of the product, not of 1 − d²: near 1 that has lost its digits.
    return torch.where(has_slope, (1 - d) * (1 + d), math.inf).rsqrt()
