"""Tuplet margin loss.

Yu, Tao (2019): Deep Metric Learning with Tuplet Margin Loss. ICCV.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive, within
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.arithmetic import softplus
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.row_losses import PositiveLoss, SlopedLoss
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Pull, Sloped, soft_extreme

__all__ = ["TupletMargin"]


class TupletMargin(SlopedLoss, PositiveLoss):
    r"""A positive nearer in angle than all negatives at once, the hardest of which count most.

    .. math::
        L_{ap} = \log \left(1 + \sum_n e^{s (\cos \theta_{an} - \cos(\theta_{ap} - \beta))}\right)

    Parameters
    ----------
    margin : float
        [radians, 0..1.5707963267948966] β, the slack: up to this angle a positive is near enough; 0.1 as in the paper,
        5.73 degrees.
    scale : float
        (0..inf] s; 64 as in the paper.
    distance : nn.Module, optional
        Cosine similarity, by default and on purpose: the angle is that of a cosine.
    reducer : nn.Module, optional
        By default the mean over the positive pairs.

    Raises
    ------
    ArgumentError
        An argument is out of its range.

    Notes
    -----
    Terms are ``pos_pair``, one for each ordered positive pair with a negative to stand against. An angle below the
    slack counts as the slack, so that no positive is pushed away; where cos θ rounds to 1 the gradient stays finite.
    Pairs from a miner count once each, however often they were selected. The paper adds the intra-pair variance:
    ``tuplet_margin + 0.5 * intra_pair_variance``.

    Deviation: the paper's cos(θ − β) falls again below β, which pushes near positives away from each other.

    References
    ----------
    Yu, Tao (2019), ICCV, equation 6; constants in section 5.1.
    """

    def __init__(
        self,
        margin: float = 0.1,
        scale: float = 64.0,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = within("margin", margin, 0, math.pi / 2, "radians")
        self.scale = positive("scale", scale)

    def default_distance(self) -> Distance:
        return Cosine()

    @property
    def loop(self) -> RowLoop:
        return soft_loop(Rule.EACH_RELAXED, self.scale, -self.scale, self.margin)

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        has_cost = rows.valid & (rows.num_negatives > 0).unsqueeze(1)
        costly = has_cost.to(rows.d_ap.dtype)
        relaxed, by_ap = _turned(rows.d_ap, self.margin)
        n, by_an = soft_extreme(rows.d_an, -self.scale, rows.scratch)
        # 0 where there is no cost: of what lies between −100 and −25 torch's softplus takes seven times as long.
        z = torch.add(n.unsqueeze(1), relaxed, alpha=-self.scale).mul_(costly)

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_z = torch.sigmoid(z).mul_(costly * by)
            return by_ap(by_z * -self.scale), by_an(by_z.sum(1))

        return Sloped((softplus(z) * costly,), (lambda: has_cost,), pull)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, scale={self.scale}"


def _turned(d: Tensor, margin: float) -> tuple[Tensor, Pull]:
    """cos(θ − margin) of negated cosines, and 1 where θ is below the margin; and how a gradient by it goes back."""
    cosine, sine = math.cos(margin), math.sin(margin)
    c = d.clamp(-cosine, 1)
    # Of the product, not of 1 − c²: near 1 that has lost its digits. Of what is opposite its root has no slope.
    s = ((1 + c) * torch.rsub(c, 1)).clamp_min(torch.finfo(d.dtype).tiny).sqrt()

    def pull(by: Tensor) -> Tensor:
        # Nothing goes back of what was clamped, as through a hard tangent.
        found: Tensor = torch.ops.aten.hardtanh_backward((c / s).mul_(-sine).sub_(cosine).mul_(by), d, -cosine, 1)
        return found

    return torch.sub(s * sine, c, alpha=cosine), pull
