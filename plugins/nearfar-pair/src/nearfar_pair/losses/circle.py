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

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        m, has_both = self.margin, rows.has_both
        alpha_p = torch.where(rows.valid, (1 + m + rows.d_ap.detach()).clamp_min_(0), 1)
        p, by_ap = soft_extreme(torch.where(rows.valid, alpha_p * (rows.d_ap + 1 - m), rows.d_ap), self.scale)
        n, by_an = soft_extreme(_exponents(rows.d_an, m, rows.scratch), -self.scale, rows.scratch)
        x = p + n

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_x = torch.where(has_both, torch.sigmoid(x) * by, 0)
            alpha_n = (m - rows.d_an).clamp_min_(0)
            return by_ap(by_x).mul_(alpha_p), by_an(by_x).mul_(alpha_n)

        return Sloped((torch.where(has_both, softplus(x), 0),), (lambda: has_both,), pull)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, scale={self.scale}"


def _exponents(d: Tensor, m: float, scratch: Tensor | None) -> Tensor:
    """αₙ (d + m), in which what is far away stays so; αₙ is a constant to the gradient."""
    if torch.is_grad_enabled():
        # What is far away keeps a weight: with a weight of 0 it would count as e⁰.
        return (torch.relu(m - d.detach()) + torch.relu(d.detach() - 2)) * (d + m)
    shifted = d + m
    n = torch.sub(m, d.detach(), out=scratch).clamp_min_(0).mul_(shifted)
    return torch.maximum(n, shifted.sub_(FAR / 2), out=n)
