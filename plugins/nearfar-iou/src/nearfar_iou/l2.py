"""L2 loss of box coordinates: the sum of squared errors of YOLO, Redmon et al. 2016, arXiv:1506.02640."""

from __future__ import annotations

from torch import Tensor

from nearfar_iou.coordinate_loss import CoordinateLoss

__all__ = ["L2"]


class L2(CoordinateLoss):
    r"""L2 loss: the square of how far each coordinate is off.

    .. math::

        L = \sum_{i=1}^{4} (p_i - t_i)^2

    Notes
    -----
    One box that is far off outweighs all others: the gradient grows with the error. Without the factor 1/2 that some
    write.

    References
    ----------
    Redmon et al. (2016), arXiv:1506.02640, on centres and the roots of sides; as ``torch.nn.MSELoss`` but for the sum
    over coordinates. Deviations: the roots of sides are the caller's to take.
    """

    def measure(self, difference: Tensor, *, slopes: bool) -> tuple[Tensor, Tensor | None]:
        return difference.square(), 2 * difference if slopes else None
