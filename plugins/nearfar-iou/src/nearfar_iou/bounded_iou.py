"""Bounded IoU loss: Tychsen-Smith and Petersson 2017, "Improving Object Localization …", arXiv:1711.00164."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive
from nearfar_iou.box_loss import BoxLoss, Measured
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs, Slopes
from nearfar_iou.mismatch import mismatch, mismatch_slopes

__all__ = ["BoundedIoU"]


class BoundedIoU(BoxLoss):
    r"""Bounded IoU loss: for each coordinate, the best IoU that it leaves possible, and how far that is from 1.

    .. math::

        L = \sum_{i \in \{x, y, w, h\}}
            \begin{cases} B_i^2 / (2 \beta) & B_i < \beta \\ B_i - \beta / 2 & \text{otherwise} \end{cases}

    .. math::

        B_x = 1 - \max\left(0, \frac{W - 2 |\delta_x|}{W + 2 |\delta_x|}\right), \qquad
        B_w = 1 - \min\left(\frac{w}{W}, \frac{W}{w}\right)

    where δ leads from the centre of the prediction to that of the target, w, h are the sides of the prediction and
    W, H those of the target.

    Parameters
    ----------
    beta : float
        (0..inf) Where a coordinate's quadratic part ends; 0.2 as in mmdet.

    Raises
    ------
    ArgumentError
        ``beta`` is not greater than 0.

    Notes
    -----
    Boxes in any unit, which may be another for each axis. Centres that are half the target's side apart or more cost
    no more for being further, and *get no gradient*; sides always do.

    The sum over a box's four coordinates; mmdet's is not added up, so that its mean is a quarter of this.

    References
    ----------
    Tychsen-Smith and Petersson (2017), arXiv:1711.00164. Deviations: none for proper boxes.
    """

    def __init__(
        self,
        beta: float = 0.2,
        *,
        box_format: Literal["xyxy", "xywh", "cxcywh", "ltrb"] = "xyxy",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(box_format=box_format, reducer=reducer)
        self.beta = positive("beta", beta)

    def measure(self, pairs: Pairs, *, slopes: bool) -> Measured:
        target, twice = pairs.sides[:, 1], 2 * pairs.offset.abs()
        total = (target + twice).clamp_min_(torch.finfo(target.dtype).tiny)
        # 1 − (W − 2|δ|) / (W + 2|δ|) = 4|δ| / (W + 2|δ|)
        centres, sides = (2 * twice / total).clamp_max_(1), mismatch(pairs)
        value = self._smooth(centres).sum(0) + self._smooth(sides).sum(0)
        if not slopes:
            return value, None
        by_centres, by_sides = (bound.clamp_max(self.beta) / self.beta for bound in (centres, sides))
        # Half of it where 2|δ| = W, as at any tie.
        by_centres = by_centres * (0.5 * (1 + (target - twice).sign())) / total
        offset = 4 * by_centres * (target / total) * pairs.offset.sign()
        by_pred, by_target = (by_sides * slope for slope in mismatch_slopes(pairs, sides))
        by_target = by_target - by_centres * (2 * twice / total)
        return value, Slopes(offset=offset, sides=(by_pred, by_target if pairs.both else None))

    def _smooth(self, bound: Tensor) -> Tensor:
        """Quadratic below beta, linear above."""
        low = bound.clamp_max(self.beta)
        return low * (bound - 0.5 * low) / self.beta

    def formula(self) -> Formula:
        return Formula("bounded_iou", (self.beta, 0.0, 0.0))

    def extra_repr(self) -> str:
        return f"beta={self.beta}, {super().extra_repr()}"
