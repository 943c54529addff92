"""ProbIoU loss: Llerena et al. 2021, "Gaussian Bounding Boxes and Probabilistic IoU", arXiv:2106.06072."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import check_choice
from nearfar_iou.gaussian_loss import GaussianLoss, scaled_by
from nearfar_iou.gaussians import Gaussians, GaussianSlopes, opposed

__all__ = ["ProbIoU"]


class ProbIoU(GaussianLoss):
    r"""ProbIoU loss of rotated boxes: how little their distributions, uniform over the boxes in variance, overlap.

    .. math::

        L_1 = H = \sqrt{1 - e^{-B}} = 1 - \text{ProbIoU}, \qquad L_2 = -\ln(1 - H^2) = B

    .. math::

        B = \tfrac{1}{4} \delta^\top (\Sigma_p + \Sigma_t)^{-1} \delta
            + \tfrac{1}{2} \ln \frac{|\Sigma_p + \Sigma_t|}{4 \sqrt{|\Sigma_p| |\Sigma_t|}}, \qquad
        \Sigma = \tfrac{1}{12} R(\theta) \, \text{diag}(w^2, h^2) \, R(\theta)^\top

    where δ leads from the target's centre to the prediction's, H is the Hellinger distance and B that of
    Bhattacharyya.

    Parameters
    ----------
    form : str
        ``"hellinger"`` is the paper's L1, from 0 to 1; ``"bhattacharyya"`` its L2, without bound.

    Raises
    ------
    ArgumentError
        ``form`` is unknown.

    Notes
    -----
    The gradient of the Hellinger distance fades like exp(−B) for boxes apart, and from a B of about 87 in float32 it
    is 0: the paper starts with the other form. H has the shape of a cone at a perfect prediction: its slope there is
    singular, and 0 by convention; it is bounded all round.

    References
    ----------
    Llerena et al. (2021), arXiv:2106.06072.

    Deviations: a side less than 1e-4 of the longest is read as so long: B of a box without area is infinite.
    The codes in use clamp B to 1e-7..100 or so instead, with no gradient beyond, and add to variances or
    determinants, so that a perfect prediction costs something.
    """

    def __init__(
        self, form: Literal["hellinger", "bhattacharyya"] = "hellinger", *, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(reducer=reducer)
        self.form = check_choice(self, "form", form, ("hellinger", "bhattacharyya"))

    def measure(self, pair: Gaussians, *, slopes: bool) -> tuple[Tensor, GaussianSlopes | None]:
        distance, by = _bhattacharyya(pair, slopes)
        if self.form == "bhattacharyya":
            return distance, by
        shared = torch.exp(-distance)
        value = torch.expm1(-distance).neg_().sqrt_()
        return value, None if by is None else scaled_by(by, torch.where(value > 0, 0.5 * shared / value, 0))

    def extra_repr(self) -> str:
        return f"form={self.form!r}"


def _bhattacharyya(pair: Gaussians, slopes: bool) -> tuple[Tensor, GaussianSlopes | None]:
    # In twelfths: |Σp + Σt| is E = (w² + W²)(h² + H²) + sin² (w² − h²)(W² − H²), and δᵀ (Σp + Σt)⁻¹ δ is M / E with
    # M = h² u² + w² v² + H² U² + W² V² for the offset (u, v) along the prediction's axes, (U, V) along the target's.
    # E / 4whWH = (1 + x)(1 + y) + z with x = (w − W)² / 2wW, y = (h − H)² / 2hH: the logarithm is one of 1 + what is 0.
    sides, known = pair.pred_sides, pair.target_sides
    off, total = sides - known, sides + known
    squares = sides.square() + known.square()
    flat = (sides[0] - sides[1]) * (sides[0] + sides[1])
    flat_t = (known[0] - known[1]) * (known[0] + known[1])
    lost = pair.turn * flat * flat_t
    product = sides * known
    x, y = off.square() / (2 * product)
    e = squares[0] * squares[1] + lost
    along_t = pair.along_target()
    along = pair.along_pred(along_t)
    crossed, crossed_t = sides.flip(0) * along, known.flip(0) * along_t
    apart = 3 * (crossed.square() + crossed_t.square()).sum(0) / e
    value = apart + 0.5 * torch.log1p(x + y + x * y + lost / (4 * product[0] * product[1]))
    if not slopes:
        return value, None
    # By the sides: 3 (dM / E − M dE / E²) and half the logarithm's, dE / 2E − 1 / 2w, as a sum without differences.
    cross = squares.flip(0)
    bent, bent_t = opposed(pair.turn * flat_t), opposed(pair.turn * flat)
    tilt, tilt_t = bent * sides.square().sum(0), bent_t * known.square().sum(0)
    by_sides = 0.5 * (off * total * cross + tilt) / sides
    by_known = 0.5 * (tilt_t - off * total * cross) / known
    by_sides += 6 * sides * along.flip(0).square() - 2 * apart * sides * (cross + bent)
    by_known += 6 * known * along_t.flip(0).square() - 2 * apart * known * (cross + bent_t)
    by_along, by_along_t = 6 * sides.flip(0) * crossed / e, 6 * known.flip(0) * crossed_t / e
    offset = pair.from_target(pair.from_pred(by_along) + by_along_t)
    angle, angle_t = (by[0] * way[1] - by[1] * way[0] for by, way in ((by_along, along), (by_along_t, along_t)))
    turn = (0.5 - apart) * flat * flat_t / e
    return value, GaussianSlopes(offset, by_sides / e, by_known / e, turn, (angle, angle_t))
