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
from nearfar_pair.arithmetic import exponential_, log_sum_exp, softplus
from nearfar_pair.row_losses import AnchorLoss
from nearfar_pair.sides import FAR, Rows

__all__ = ["Circle"]


class Circle(AnchorLoss):
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

    def costs(self, rows: Rows, *learned: Tensor) -> tuple[Tensor, Tensor]:
        m, has_both = self.margin, rows.has_both
        d_ap, d_an = rows.d_ap, rows.d_an  # −s
        alpha_p = torch.relu(1 + m + d_ap.detach())
        p = torch.where(rows.valid, alpha_p * (d_ap + 1 - m), d_ap)
        if rows.scratch is None:
            # What is far away keeps a weight: with a weight of 0 it would count as e⁰.
            alpha_n = torch.relu(m - d_an.detach()).add_(torch.relu(d_an.detach() - 2))
            negatives = log_sum_exp(alpha_n * (d_an + m), -self.scale)
        else:
            negatives = _Negatives.apply(d_an, m, self.scale, rows.scratch)
        costs = softplus(log_sum_exp(p, self.scale) + negatives)
        return torch.where(has_both, costs, 0), has_both

    def extra_repr(self) -> str:
        return f"margin={self.margin}, scale={self.scale}"


class _Negatives(torch.autograd.Function):
    """log Σ exp(−γ αₙ (d + m)) of each row, in two buffers."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, m: float, scale: float, scratch: Tensor) -> Tensor:
        shifted = d + m
        n = torch.sub(2 * m, shifted, out=scratch).clamp_min_(0).mul_(shifted)
        torch.maximum(n, shifted.sub_(FAR / 2), out=n)  # what is far away stays far
        first = n.amin(1, keepdim=True)
        total = exponential_(n.sub_(first), -scale).sum(1, keepdim=True)
        ctx.save_for_backward(d, total)
        # Not as a saved tensor, whose memory nobody may write to.
        ctx.weights, ctx.m, ctx.scale = n, m, scale
        return (total.log() - scale * first)[:, 0]

    @staticmethod
    def backward(ctx: Any, by_found: Tensor) -> tuple[Tensor | None, ...]:
        d, total = ctx.saved_tensors
        by_d = ctx.weights.mul_(torch.sub(ctx.m, d).clamp_min_(0)).mul_(-ctx.scale * by_found[:, None] / total)
        return by_d, None, None, None
