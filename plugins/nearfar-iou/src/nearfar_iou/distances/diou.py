"""DIoU as a similarity: Zheng et al. (2020), arXiv:1911.08287."""

from __future__ import annotations

from nearfar_iou.corners import Formula, diou
from nearfar_iou.diou import DIoU
from nearfar_iou.distances.box_similarity import BoxSimilarity

__all__ = ["DIoUSimilarity"]


class DIoUSimilarity(BoxSimilarity):
    r"""Distance IoU of every pair of boxes, in [−1, 1]; larger is nearer.

    .. math::

        s(a, b) = \text{IoU} - \frac{\rho^2(\mathbf{a}, \mathbf{b})}{c^2}

    where ρ is the distance of the centres and c the diagonal of the smallest box round both.

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
    Zheng et al. (2020), arXiv:1911.08287.
    """

    def formula(self) -> Formula:
        return diou

    def loss(self) -> DIoU:
        return DIoU()
