"""Balanced L1 loss: Pang et al. 2019, "Libra R-CNN: Towards Balanced Learning for Object Detection", 1904.02701."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import positive
from nearfar_iou.coordinate_loss import CoordinateLoss
from nearfar_iou.precise import excess_over_log1p

__all__ = ["BalancedL1"]


class BalancedL1(CoordinateLoss):
    r"""Balanced L1 loss: smooth L1 whose slope rises early, so that accurate boxes count for more, and ends at γ.

    .. math::

        L = \sum_{i=1}^{4} \begin{cases}
                \dfrac{\alpha \beta}{b} (t_i + 1) \ln (t_i + 1) - \alpha d_i & d_i < \beta \\
                \gamma d_i + \gamma \beta / b - \alpha \beta & \text{otherwise} \end{cases},
        \qquad d_i = |p_i - t_i|, \quad t_i = \frac{b d_i}{\beta}, \quad b = e^{\gamma / \alpha} - 1

    so that the slope is α ln(t + 1) within β and γ beyond.

    Parameters
    ----------
    alpha : float
        (0..inf) The smaller, the more the slope of small errors is promoted; 0.5 as in the paper.
    gamma : float
        (0..inf) The slope of large errors; 1.5 as in the paper.
    beta : float
        (coordinates, 0..inf) Where the slope ends to rise; 1 as in the paper, which has it for no other.

    Raises
    ------
    ArgumentError
        ``alpha``, ``gamma`` or ``beta`` is not greater than 0, or γ / α is over 80, where b leaves float32.

    References
    ----------
    Pang et al. (2019), arXiv:1904.02701.

    Deviations: none at β = 1. mmdet's β scales one of two places, so that for any other its slope jumps by
    α / β − α at a perfect prediction; here it is 0 there.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        gamma: float = 1.5,
        beta: float = 1.0,
        coord: Literal["sum", "mean"] = "sum",
        *,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(coord, reducer=reducer)
        self.alpha = positive("alpha", alpha)
        self.gamma = positive("gamma", gamma)
        self.beta = positive("beta", beta)
        if self.gamma > 80 * self.alpha:
            raise ArgumentError(f"gamma = {gamma:g} is over 80 times alpha = {alpha:g}, so exp(gamma / alpha) is huge")

    def measure(self, difference: Tensor, *, slopes: bool) -> tuple[Tensor, Tensor | None]:
        b = math.expm1(self.gamma / self.alpha)
        distance = difference.abs()
        t = distance.clamp_max(self.beta).mul_(b / self.beta)
        log = t.log1p()
        # (t + 1) ln(t + 1) − t = t ln(t + 1) − (t − ln(t + 1)), of which the second is half the first near 0.
        value = (t * log).sub_(excess_over_log1p(t, log)).mul_(self.alpha * self.beta / b)
        value += (distance - self.beta).clamp_min_(0).mul_(self.gamma)
        if not slopes:
            return value, None
        return value, log.mul_(self.alpha).mul_(torch.sign(difference))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, beta={self.beta}, {super().extra_repr()}"
