"""SIoU loss: Gevorgyan 2022, "SIoU Loss: More Powerful Learning for Bounding Box Regression", arXiv:2205.12740."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import within
from nearfar_iou.box_loss import Measured, PenalizedIoU
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs, Slopes
from nearfar_iou.mismatch import mismatch, mismatch_slopes

__all__ = ["SIoU"]


class SIoU(PenalizedIoU):
    r"""SIoU loss: IoU loss that also costs distance, less so along an axis than askew, and a difference in shape.

    .. math::

        L = 1 - \text{IoU} + \frac{\Delta + \Omega}{2}, \qquad
        \Delta = \sum_{t = x, y} 1 - e^{-(2 - \Lambda) \rho_t}, \qquad
        \Omega = \sum_{t = w, h} \left( 1 - e^{-\omega_t} \right)^\theta

    .. math::

        \Lambda = \sin 2 \varphi = \frac{2 |\delta_x \delta_y|}{\delta_x^2 + \delta_y^2}, \qquad
        \rho_x = \left( \frac{\delta_x}{C_w} \right)^2, \qquad
        \omega_w = \frac{|w - W|}{\max(w, W)}

    where δ leads from the centre of the prediction to that of the target, φ is its angle, w, h are the sides of the
    prediction and W, H those of the target, and :math:`C_w`, :math:`C_h` those of the hull, the smallest box round
    both.

    Parameters
    ----------
    theta : float
        [1..10] How much the shape counts; 4 as in the paper, which looks for it between 2 and 6.

    Raises
    ------
    ArgumentError
        ``theta`` is out of its range.

    Notes
    -----
    Boxes in any unit, the same for both axes. The exponent of Δ is negative as in the paper: with a positive one, as
    in mmdet by default, boxes apart cost less the further they are. Straight away from each other boxes cost the more
    the further they are; on other ways the angle changes too, and with it what distance costs.

    References
    ----------
    Gevorgyan (2022), arXiv:2205.12740. The paper writes Λ as 1 − 2 sin²(arcsin x − π/4), which is the same.
    """

    def __init__(
        self,
        theta: float = 4.0,
        *,
        box_format: Literal["xyxy", "xywh", "cxcywh", "ltrb"] = "xyxy",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(box_format=box_format, reducer=reducer)
        self.theta = within("theta", theta, 1, 10)

    def penalties(self, pairs: Pairs, *, slopes: bool) -> list[Measured]:
        distance, by_offset, by_hull = _distance(pairs, slopes=slopes)
        omega = mismatch(pairs)
        share = -(-omega).expm1()
        value = 0.5 * (distance + share.pow(self.theta).sum(0))
        if by_offset is None or by_hull is None:
            return [(value, None)]
        # d/dω (1 − e^−ω)^θ = θ (1 − e^−ω)^(θ − 1) e^−ω, and half of it.
        by_omega = (0.5 * self.theta) * share.pow(self.theta - 1) * (1 - share)
        by_pred, by_target = (by_omega * slope for slope in mismatch_slopes(pairs, omega))
        sides = (by_pred, by_target if pairs.both else None)
        return [(value, Slopes(offset=0.5 * by_offset, hull=0.5 * by_hull, sides=sides))]

    def formula(self) -> Formula:
        return Formula("siou", (self.theta, 0.0, 0.0))

    def extra_repr(self) -> str:
        return f"theta={self.theta}, {super().extra_repr()}"


def _distance(pairs: Pairs, *, slopes: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Δ (n,), and its derivatives by offset and hull, (2, n) each."""
    away = pairs.shift / pairs.diagonal  # δ/c: the angle is that of the boxes' own unit
    squared = away.square().sum(0).clamp_min_(torch.finfo(away.dtype).tiny)
    angle = 2 * away.prod(0).abs() / squared
    rho = pairs.offset.square()
    exponent = (angle - 2) * rho
    value = -exponent.expm1().sum(0)
    if not slopes:
        return value, None, None
    by_exponent = -exponent.exp()
    by_rho = by_exponent * (angle - 2)
    by_angle = (by_exponent * rho).sum(0)
    # ∂Λ/∂δx = (2 |δy| sign δx − 2 Λ δx) / δ², times Cw as offsets are measured in hulls.
    turn = 2 * (away.abs().flip(0) * away.sign() - angle * away) * (pairs.slant / squared)
    return value, 2 * by_rho * pairs.offset + by_angle * turn, -2 * by_rho * rho
