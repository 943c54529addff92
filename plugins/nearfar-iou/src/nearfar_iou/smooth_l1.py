"""Smooth L1 loss: Girshick 2015, "Fast R-CNN", arXiv:1504.08083."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar_iou.coordinate_loss import CoordinateLoss

__all__ = ["SmoothL1"]


class SmoothL1(CoordinateLoss):
    r"""Smooth L1 loss of box coordinates: quadratic near the target, linear away from it.

    .. math::

        L = \sum_{i=1}^{4}
            \begin{cases} d_i^2 / (2 \beta) & d_i < \beta \\ d_i - \beta / 2 & \text{otherwise} \end{cases},
        \qquad d_i = |p_i - t_i|

    Parameters
    ----------
    beta : float
        [coordinates, 0..inf] Where the quadratic part ends; 0 is the L1 loss. 1 as in the paper, which compares
        encoded offsets of variance 1.

    Raises
    ------
    ArgumentError
        ``beta`` is negative or not finite.

    Notes
    -----
    ``torch.nn.SmoothL1Loss`` takes the mean over boxes and coordinates: that is ``coord="mean"``.

    References
    ----------
    Girshick (2015), arXiv:1504.08083; beta is torch's generalisation. Deviations: none.
    """

    def __init__(
        self, beta: float = 1.0, coord: Literal["sum", "mean"] = "sum", *, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(coord, reducer=reducer)
        self.beta = non_negative("beta", beta)

    def measure(self, difference: Tensor, *, slopes: bool) -> tuple[Tensor, Tensor | None]:
        if self.beta == 0:
            return difference.abs(), difference.sign() if slopes else None
        # Within beta the slope is d / β, and d / β · (d − d / 2) = d² / 2β; beyond it ±1, and d − β / 2.
        near = difference.clamp(-self.beta, self.beta)
        slope = near / self.beta
        return near.mul_(-0.5).add_(difference).mul_(slope), slope

    def extra_repr(self) -> str:
        return f"beta={self.beta}, {super().extra_repr()}"
