"""KLD loss: Yang et al. 2021, "Learning High-Precision Bounding Box … via Kullback-Leibler Divergence", 2106.01883."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import check_choice
from nearfar_iou.gaussian_loss import DivergenceLoss, scaled_by
from nearfar_iou.gaussians import Gaussians, GaussianSlopes, opposed
from nearfar_iou.precise import excess_over_log1p

__all__ = ["KLD"]

DIRECTIONS = ("pred_target", "target_pred", "jeffreys")


class KLD(DivergenceLoss):
    r"""KLD loss of rotated boxes: the Kullback-Leibler divergence of one's distribution from the other's.

    .. math::

        L = \frac{1}{\tau} - \frac{1}{\tau + f(D)}, \qquad
        D = \tfrac{1}{2} \left( \delta^\top \Sigma_t^{-1} \delta + \text{Tr}(\Sigma_t^{-1} \Sigma_p)
            + \ln \frac{|\Sigma_t|}{|\Sigma_p|} \right) - 1, \qquad
        \Sigma = \tfrac{1}{4} R(\theta) \, \text{diag}(w^2, h^2) \, R(\theta)^\top

    where δ leads from the target's centre to the prediction's. The slope by the centre is divided by the target's
    sides, and that by the angle grows with its aspect ratio: what counts more gets more.

    Parameters
    ----------
    direction : str
        ``"pred_target"`` is D as above, D(p ‖ t); ``"target_pred"`` is D(t ‖ p), with the roles exchanged; and
        ``"jeffreys"`` is the mean of both.
    transform : str
        f: ``"log1p"`` is ln(1 + D), ``"sqrt"`` is √D, ``"log1p_sqrt"`` is ln(1 + √D). ``"log1p"`` as in the authors'
        code. √D has the shape of a cone at a perfect prediction: its slope there is singular, and 0 by convention; it
        is bounded all round.
    tau : float, optional
        [1..inf] Bounds the loss by 1 / τ; 1 as in the authors' code. None: the loss is f(D).

    Raises
    ------
    ArgumentError
        ``direction`` is unknown.

    References
    ----------
    Yang et al. (2021), arXiv:2106.01883. Defaults: ``kld_loss`` beside ``GDLoss_v1`` in mmrotate, the authors' code,
    whose D is twice this; that of its ``GDLoss`` is D(t ‖ p).

    Deviations: 1 − 1 / τ is taken off the paper's 1 − 1 / (τ + f), so that a perfect prediction costs 0 for every τ.
    A side less than 1e-4 of the longest is read as so long: the divergence of a box without area is infinite.
    """

    def __init__(
        self,
        direction: Literal["pred_target", "target_pred", "jeffreys"] = "pred_target",
        transform: Literal["log1p", "sqrt", "log1p_sqrt"] = "log1p",
        tau: float | None = 1.0,
        *,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(transform, tau, reducer=reducer)
        self.direction = check_choice(self, "direction", direction, DIRECTIONS)

    def divergence(self, pair: Gaussians, *, slopes: bool) -> tuple[Tensor, GaussianSlopes | None]:
        found = []
        if self.direction != "target_pred":
            found.append(_from_target(pair, slopes))
        if self.direction != "pred_target":
            found.append(_from_pred(pair, slopes))
        if len(found) == 1:
            return found[0]
        (first, by_first), (second, by_second) = found
        value = 0.5 * (first + second)
        if by_first is None or by_second is None:
            return value, None
        return value, scaled_by(_sum(by_first, by_second), torch.full_like(value, 0.5))

    def extra_repr(self) -> str:
        return f"direction={self.direction!r}, {super().extra_repr()}"


def _from_target(pair: Gaussians, slopes: bool) -> tuple[Tensor, GaussianSlopes | None]:
    """D(p ‖ t)."""
    value, by = _divergence(pair.pred_sides, pair.target_sides, pair.turn, pair.along_target(), slopes)
    if by is None:
        return value, None
    return value, GaussianSlopes(pair.from_target(by.offset), by.sides, by.known, by.turn, (None, by.angle))


def _from_pred(pair: Gaussians, slopes: bool) -> tuple[Tensor, GaussianSlopes | None]:
    """D(t ‖ p): the same of the two exchanged; the offset goes by its square."""
    along = pair.along_pred(pair.along_target())
    value, by = _divergence(pair.target_sides, pair.pred_sides, pair.turn, along, slopes)
    if by is None:
        return value, None
    offset = pair.from_target(pair.from_pred(by.offset))
    return value, GaussianSlopes(offset, by.known, by.sides, by.turn, (by.angle, None))


class _By(NamedTuple):
    """Derivatives of a divergence."""

    offset: Tensor
    sides: Tensor
    known: Tensor
    turn: Tensor
    angle: Tensor


def _divergence(sides: Tensor, known: Tensor, turn: Tensor, along: Tensor, slopes: bool) -> tuple[Tensor, _By | None]:
    """The divergence of the distribution of ``sides`` from that of ``known``, along whose axes the offset is."""
    # Along an axis (w / W)² − 1 − 2 ln(w / W) = x² + 2 (x − ln(1 + x)) with x = (w − W) / W; beside that the turn
    # takes sin² (w² − h²) (1 / H² − 1 / W²) from one axis to the other.
    relative, away = (sides - known) / known, along / known
    flat = (sides[0] - sides[1]) * (sides[0] + sides[1])
    inverse = known.square().reciprocal()
    steep = (known[0] - known[1]) * (known[0] + known[1]) * inverse[0] * inverse[1]
    excess = excess_over_log1p(relative, (sides / known).log())
    value = (0.5 * relative.square() + excess + 2 * away.square()).sum(0) + 0.5 * turn * flat * steep
    if not slopes:
        return value, None
    both = relative * (sides + known) / known
    by_sides = both / sides + opposed(turn * steep) * sides
    by_known = (opposed(turn * flat) * inverse - both - 4 * away.square()) / known
    by_offset = 4 * away / known
    angle = by_offset[0] * along[1] - by_offset[1] * along[0]
    return value, _By(by_offset, by_sides, by_known, 0.5 * flat * steep, angle)


def _sum(first: GaussianSlopes, second: GaussianSlopes) -> GaussianSlopes:
    return GaussianSlopes(
        first.offset + second.offset,
        first.pred_sides + second.pred_sides,
        first.target_sides + second.target_sides,
        first.turn + second.turn,
        (second.angles[0], first.angles[1]),
    )
