"""GIoU loss: Rezatofighi et al. 2019, "Generalized Intersection over Union", arXiv:1902.09630."""

from __future__ import annotations

from nearfar_iou.box_loss import Measured, PenalizedIoU
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["GIoU"]


class GIoU(PenalizedIoU):
    r"""GIoU loss: IoU loss that also costs the part of the hull which neither box fills.

    .. math::

        L = 1 - \text{IoU} + \frac{|C| - |P \cup T|}{|C|} \in [0, 2)

    where C, the hull, is the smallest box round both.

    Notes
    -----
    Boxes in any unit; boxes apart cost more the further they are. Only inverted ones can cost 2 or more.

    References
    ----------
    Rezatofighi et al. (2019), arXiv:1902.09630.

    Deviations: none for proper boxes. The paper sorts the coordinates of an inverted box, which makes it as good as
    the box turned round.
    """

    def penalties(self, pairs: Pairs, *, slopes: bool) -> list[Measured]:
        # In hulls |C| = 1. Rounding can take a union that fills its hull beyond it, hence the clamp.
        empty = (pairs.hull_area - pairs.union).clamp_min_(0)
        return [(empty, Slopes(union=-1.0, hull=pairs.union) if slopes else None)]

    def formula(self) -> Formula:
        return Formula("giou")
