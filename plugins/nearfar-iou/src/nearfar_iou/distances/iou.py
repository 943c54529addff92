"""IoU as a similarity: Jaccard (1912), "The Distribution of the Flora in the Alpine Zone"."""

from __future__ import annotations

from nearfar_iou.corners import Formula, iou
from nearfar_iou.distances.box_similarity import BoxSimilarity
from nearfar_iou.iou import IoU

__all__ = ["IoUSimilarity"]


class IoUSimilarity(BoxSimilarity):
    r"""Intersection over union of every pair of boxes, in [0, 1]; larger is nearer.

    .. math::

        s(a, b) = \frac{|A \cap B|}{|A \cup B|}

    References
    ----------
    Jaccard (1912), "The Distribution of the Flora in the Alpine Zone".
    """

    def formula(self) -> Formula:
        return iou

    def loss(self) -> IoU:
        return IoU()
