"""DIoU loss: Zheng et al. 2020, "Distance-IoU Loss", arXiv:1911.08287."""

from __future__ import annotations

from nearfar_iou.box_loss import Measured, PenalizedIoU
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["DIoU"]


class DIoU(PenalizedIoU):
    r"""DIoU loss: IoU loss that also costs the distance of the centres, in diagonals of the hull.

    .. math::

        L = 1 - \text{IoU} + \frac{\rho^2}{c^2} \in [0, 2)

    where ρ is the distance of the boxes' centres and c the diagonal of the hull, the smallest box round both.

    Notes
    -----
    Boxes in any unit, the same for both axes; boxes apart cost more the further they are. Only inverted ones can cost
    2 or more.

    References
    ----------
    Zheng et al. (2020), arXiv:1911.08287. Deviations: none for proper boxes.
    """

    def penalties(self, pairs: Pairs, *, slopes: bool) -> list[Measured]:
        away = pairs.shift / pairs.diagonal  # ρ/c by axis
        penalty = away.square().sum(0)
        if not slopes:
            return [(penalty, None)]
        # With c² = Cw² + Ch², by a side of the hull: −2 ρ²/c² · Cw/c², here times Cw as sides are measured in hulls.
        twice = pairs.slant + pairs.slant
        return [(penalty, Slopes(offset=away.mul_(twice), hull=twice.mul_(pairs.slant).mul_(penalty).neg_()))]

    def formula(self) -> Formula:
        return Formula("diou")
