"""L1 loss of box coordinates: what DETR (Carion et al. 2020, arXiv:2005.12872) has beside GIoU."""

from __future__ import annotations

from torch import Tensor

from nearfar_iou.coordinate_loss import CoordinateLoss

__all__ = ["L1"]


class L1(CoordinateLoss):
    r"""L1 loss: how far each coordinate is off.

    .. math::

        L = \sum_{i=1}^{4} |p_i - t_i|

    Notes
    -----
    A large box is off by more than a small one that overlaps its target as well: coordinates are to be encoded
    relative to something, or a loss on overlap to stand beside it.

    References
    ----------
    Carion et al. (2020), arXiv:2005.12872: the sum over the normalised coordinates ``cxcywh``, over the number of
    boxes. Deviations: none.
    """

    def measure(self, difference: Tensor, *, slopes: bool) -> tuple[Tensor, Tensor | None]:
        return difference.abs(), difference.sign() if slopes else None
