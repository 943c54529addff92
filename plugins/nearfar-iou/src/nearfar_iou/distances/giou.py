"""GIoU as a similarity: Rezatofighi et al. (2019), arXiv:1902.09630."""

from __future__ import annotations

from nearfar_iou.corners import Formula, giou
from nearfar_iou.distances.box_similarity import BoxSimilarity
from nearfar_iou.giou import GIoU

__all__ = ["GIoUSimilarity"]


class GIoUSimilarity(BoxSimilarity):
    r"""Generalized IoU of every pair of boxes, in [−1, 1]; larger is nearer.

    .. math::

        s(a, b) = \text{IoU} - \frac{|C| - |A \cup B|}{|C|}

    where C is the smallest box round both. It tells boxes apart from boxes far apart, which IoU does not.

    References
    ----------
    Rezatofighi et al. (2019), arXiv:1902.09630.
    """

    lowest = -1.0

    def formula(self) -> Formula:
        return giou

    def loss(self) -> GIoU:
        return GIoU()
