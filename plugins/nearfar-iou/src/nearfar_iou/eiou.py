"""EIoU loss: Zhang et al. 2021, "Focal and Efficient IOU Loss", arXiv:2101.08158."""

from __future__ import annotations

from nearfar_iou.box_loss import Measured
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.diou import DIoU
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["EIoU"]


class EIoU(DIoU):
    r"""Efficient IoU loss: DIoU loss that also costs the differences in width and in height.

    .. math::

        L = 1 - \text{IoU} + \frac{\rho^2}{c^2} + \frac{(w - W)^2}{C_w^2} + \frac{(h - H)^2}{C_h^2} \in [0, 4)

    where w, h are the sides of the prediction and W, H those of the target, ρ is the distance of the centres, and c,
    :math:`C_w`, :math:`C_h` are the diagonal and the sides of the hull, the smallest box round both.

    Notes
    -----
    Boxes in any unit, the same for both axes. What mmdet calls EIoU is another loss, *extended* IoU.

    The hull that the sides are measured in grows as boxes move apart. So boxes of different sizes that share nothing
    may cost *less* further on, and be pushed apart before they are pulled together.

    References
    ----------
    Zhang et al. (2021), arXiv:2101.08158. Its Focal-EIoU is ``focal_iou(eiou)``. Deviations: none for proper boxes.
    """

    def penalties(self, pairs: Pairs, *, slopes: bool) -> list[Measured]:
        gap = pairs.gap
        squared = gap.square()
        by = None
        if slopes:
            steep = 2 * gap
            by = Slopes(sides=(-steep, steep if pairs.both else None), hull=-2 * squared)
        return [*super().penalties(pairs, slopes=slopes), (squared.sum(0), by)]

    def formula(self) -> Formula:
        return Formula("eiou")
