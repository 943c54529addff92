"""CIoU as a similarity: Zheng et al. (2020), arXiv:1911.08287."""

from __future__ import annotations

from nearfar_iou.ciou import CIoU
from nearfar_iou.corners import Formula, ciou
from nearfar_iou.distances.box_similarity import BoxSimilarity

__all__ = ["CIoUSimilarity"]


class CIoUSimilarity(BoxSimilarity):
    r"""Complete IoU of every pair of boxes, in [−1.5, 1]; larger is nearer.

    .. math::

        s(a, b) = \text{DIoU} - \alpha v, \qquad
        v = \frac{4}{\pi^2} \left(\arctan \frac{w_a}{h_a} - \arctan \frac{w_b}{h_b}\right)^2, \qquad
        \alpha = \frac{v}{1 - \text{IoU} + v}

    α is held constant where a gradient is asked for, as it is in the loss.

    References
    ----------
    Zheng et al. (2020), arXiv:1911.08287.
    """

    lowest = -1.5

    def formula(self) -> Formula:
        return ciou

    def loss(self) -> CIoU:
        return CIoU()
