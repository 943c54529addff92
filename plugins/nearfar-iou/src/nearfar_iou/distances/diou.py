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

    References
    ----------
    Zheng et al. (2020), arXiv:1911.08287.
    """

    lowest = -1.0

    def formula(self) -> Formula:
        return diou

    def loss(self) -> DIoU:
        return DIoU()
