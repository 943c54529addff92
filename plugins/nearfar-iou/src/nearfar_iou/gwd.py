"""GWD loss: Yang et al. 2021, "Rethinking Rotated Object Detection with Gaussian Wasserstein Distance", 2101.11952."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar_iou.gaussian_loss import DivergenceLoss, scaled_by
from nearfar_iou.gaussians import Gaussians, GaussianSlopes

__all__ = ["GWD"]


class GWD(DivergenceLoss):
    r"""GWD loss of rotated boxes: how much has to be moved, and how far, to make one's distribution the other's.

    .. math::

        L = \frac{1}{\tau} - \frac{1}{\tau + f(W^2)}, \qquad
        W^2 = \lVert \mu_p - \mu_t \rVert^2
            + \text{Tr}\left( \Sigma_p + \Sigma_t - 2 (\Sigma_p^{1/2} \Sigma_t \Sigma_p^{1/2})^{1/2} \right), \qquad
        \Sigma = \tfrac{1}{4} R(\theta) \, \text{diag}(w^2, h^2) \, R(\theta)^\top

    For boxes along the axes 4 W² is the sum of (w − W)² and (h − H)², and of four times the centres' squared distance.

    Parameters
    ----------
    transform : str
        f: ``"sqrt"`` is W, ``"log1p"`` is ln(1 + W²), ``"log1p_sqrt"`` is ln(1 + W). ``"sqrt"`` as in the authors'
        code. W has the shape of a cone at a perfect prediction: its slope there is singular, and 0 by convention; it
        is bounded all round.
    tau : float, optional
        [1..inf] Bounds the loss by 1 / τ; 2 as in the authors' code. None: the loss is f(W²).
    normalize : bool
        Whether W is taken in geometric means of the four sides, so that the loss does not depend on the unit of the
        boxes. Not in the paper; as in mmrotate's later code.

    References
    ----------
    Yang et al. (2021), arXiv:2101.11952. Defaults: ``gwd_loss`` beside ``GDLoss_v1`` in mmrotate, the authors' code.

    Deviations: 1 − 1 / τ is taken off the paper's 1 − 1 / (τ + f), so that a perfect prediction costs 0 for every τ.
    A side less than 1e-4 of the longest is read as so long.
    """

    def __init__(
        self,
        transform: Literal["log1p", "sqrt", "log1p_sqrt"] = "sqrt",
        tau: float | None = 2.0,
        normalize: bool = False,
        *,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(transform, tau, reducer=reducer)
        self.normalize = bool(normalize)

    def divergence(self, pair: Gaussians, *, slopes: bool) -> tuple[Tensor, GaussianSlopes | None]:
        # With S = wW + hH, R = wH + hW and r² = cos² S² + sin² R² = S² − sin² (w² − h²)(W² − H²), the root's trace is
        # r / 4, and 4 W² but for the centres (w − W)² + (h − H)² + 2 (S − r).
        w, h = pair.pred_sides
        w_t, h_t = pair.target_sides
        off_w, off_h = w - w_t, h - h_t
        flat, flat_t = (w - h) * (w + h), (w_t - h_t) * (w_t + h_t)
        s = w * w_t + h * h_t
        r = (pair.rest * s.square() + pair.turn * (w * h_t + h * w_t).square()).sqrt()
        both, lost = s + r, flat * flat_t
        value = pair.offset.square().sum(0)
        value += (off_w.square() + off_h.square() + 2 * pair.turn * lost / both).mul_(0.25)
        by = None
        if slopes:
            askew, askew_t = pair.turn * flat_t / r, pair.turn * flat / r
            share, share_t = flat / both, flat_t / both
            by_pred = torch.stack((off_w + askew * (w - w_t * share), off_h - askew * (h + h_t * share)))
            by_target = torch.stack((askew_t * (w_t - w * share_t) - off_w, -askew_t * (h_t + h * share_t) - off_h))
            by = GaussianSlopes(2 * pair.offset, 0.5 * by_pred, 0.5 * by_target, 0.25 * lost / r)
        return self._in_units(pair, value, by)

    def _in_units(
        self, pair: Gaussians, value: Tensor, by: GaussianSlopes | None
    ) -> tuple[Tensor, GaussianSlopes | None]:
        """In the unit of the boxes, or in geometric means of the four sides."""
        sides, target_sides = pair.pred_sides, pair.target_sides
        unit = 1 / (sides * target_sides).prod(0).sqrt() if self.normalize else pair.unit.square()
        value = value * unit
        if by is None:
            return value, None
        by = scaled_by(by, unit)
        if self.normalize:
            half = -0.5 * value
            by = replace(
                by,
                pred_sides=by.pred_sides + half / sides,
                target_sides=by.target_sides + half / target_sides,
            )
        return value, by

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, normalize={self.normalize}"
