"""Circle loss.

Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei (2020): Circle Loss: A Unified Perspective of Pair Similarity Optimization.
arXiv:2002.10857.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive, within
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.arithmetic import softplus
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.sides import FAR, Rows
from nearfar_pair.sloped import Sloped, soft_extreme

__all__ = ["Circle"]


class Circle(SlopedLoss):
    r"""Similarities drawn to their optimum, the farther from it the harder.

    .. math::
        L_i = \log \left(1 + \sum_n e^{\gamma \alpha_n (s_{in} - m)}
              \sum_p e^{-\gamma \alpha_p (s_{ip} - 1 + m)}\right),
        \qquad \alpha_p = [1 + m - s_{ip}]_+, \quad \alpha_n = [s_{in} + m]_+

    The weights α are constants to the gradient, as in the paper's.

    Parameters
    ----------
    margin : float
        [cosine, -1..1] m, the relaxation; 0.4 as the paper's for retrieval.
    scale : float
        (0..inf] γ; 80 as the paper's for retrieval.
    distance : nn.Module, optional
        Cosine similarity, by default and on purpose: the optima 1 and 0 are cosines.
    reducer : nn.Module, optional
        By default the mean over the anchors with a positive and a negative.

    Raises
    ------
    ArgumentError
        An argument is out of its range.

    Notes
    -----
    Terms are ``element``, one for each anchor with a positive and a negative; the others are left out, as their cost
    would be that of nothing. Pairs from a miner count once each, however often they were selected.

    References
    ----------
    Sun et al. (2020), arXiv:2002.10857, equations 4 to 6; constants in section 4.1.
    """

    def __init__(
        self,
        margin: float = 0.4,
        scale: float = 80.0,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = within("margin", margin, -1, 1)
        self.scale = positive("scale", scale)

    def default_distance(self) -> Distance:
        return Cosine()

    @property
    def loop(self) -> RowLoop:
        return soft_loop(Rule.CIRCLE, self.scale, self.scale, self.margin)

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        m, scale = self.margin, self.scale
        alpha_p = (rows.d_ap.detach() + (1 + m)).clamp_min_(0)
        # Times −1, as the slope by the distance is.
        alpha_n = torch.clamp_max(rows.d_an.detach(), m, out=rows.spare).sub_(m)
        p, by_ap = soft_extreme(_exponents(alpha_p, rows.d_ap, 1 - m), scale)
        n, by_an = soft_extreme(_exponents(alpha_n, rows.d_an, m, rows.scratch), scale, rows.scratch)
        # Where there is no positive or no negative this is −1e18 γ.
        x = p + n

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_x = torch.sigmoid(x) * by
            return by_ap(by_x).mul_(alpha_p), by_an(by_x).mul_(alpha_n)

        return Sloped((softplus(x),), (lambda: (x < -scale * FAR / 2).logical_not_(),), pull)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, scale={self.scale}"


def _exponents(alpha: Tensor, d: Tensor, offset: float, out: Tensor | None = None) -> Tensor:
    """α (d + offset), and −1e18 where the distance is far, whose α is 0."""
    if torch.is_grad_enabled():
        return alpha * (d + offset) - d.detach().square() / FAR
    return torch.add(d, offset, out=out).mul_(alpha).addcmul_(d, d, value=-1 / FAR)
