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

    An inverted side counts as one of length 0 at its midpoint. Boxes without extent along an axis are equal along it
    where they lie at the same place: a box that is a point has a similarity of 1 to itself. The table is made in
    small pieces; the gradient cannot be differentiated again.

    Parameters
    ----------
    box_format : str
        ``"xyxy"`` (two corners), ``"xywh"`` (lower corner and sides), ``"cxcywh"`` (centre and sides) or ``"ltrb"``
        (how far it reaches to the left, the top, the right and the bottom of a point that all boxes share).

    Raises
    ------
    ArgumentError
        ``box_format`` is unknown.

    References
    ----------
    Jaccard (1912), "The Distribution of the Flora in the Alpine Zone".
    """

    def formula(self) -> Formula:
        return iou

    def loss(self) -> IoU:
        return IoU()
