"""PNP loss: penalise negatives before positives.

Li, Min, Song, Zhu, Zhou, Zhou (2022): Rethinking the Optimization of Average Precision: Only Penalizing Negative
Instances before Positive Ones is Enough. arXiv:2102.04640.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import check_choice, positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped
from nearfar_pair.soft_ranks import of_positives, soft_before

__all__ = ["PNP"]

VARIANTS = ("O", "Iu", "Ib", "Ds", "Dq")


class PNP(SlopedLoss):
    r"""The negatives that stand before each positive of an anchor's list, counted by a sigmoid.

    .. math::
        R_{ip} = \sum_{n \in N_i} \frac{1}{1 + e^{-(s_{in} - s_{ip}) / \tau}}, \qquad
        L_i = \frac{1}{|P_i|} \sum_{p \in P_i} f(R_{ip})

    with f(R) = R for ``O``, :math:`(1 + R) \log(1 + R)` for ``Iu``, :math:`(b R - \log(1 + b R)) / b^2` for ``Ib``
    (gradients that grow with R), :math:`\log(1 + R)` for ``Ds`` and :math:`1 - (1 + R)^{-\alpha}` for ``Dq`` (gradients
    that fall with R, so that positives which are hopelessly far are left alone).

    Parameters
    ----------
    variant : {"O", "Iu", "Ib", "Ds", "Dq"}
        f; the paper finds that gradients which fall do best.
    alpha : float
        (0..inf] α of ``Dq``; 1, pytorch-metric-learning's.
    b : float
        (0..inf] b of ``Ib``; 2, pytorch-metric-learning's.
    temperature : float
        (units of the similarity, 0..inf] τ; 0.01 as in the paper.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        By default the mean over the anchors with a positive.

    Raises
    ------
    ArgumentError
        An argument is not above 0, or the variant is unknown.

    Notes
    -----
    Terms are ``element``, one for each anchor with a positive. Classes may be of any sizes, in any order. Pairs from a
    miner count once each, however often they were selected.

    References
    ----------
    Li et al. (2022), arXiv:2102.04640, section 3.
    """

    def __init__(
        self,
        variant: Literal["O", "Iu", "Ib", "Ds", "Dq"] = "Dq",
        alpha: float = 1.0,
        b: float = 2.0,
        temperature: float = 0.01,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.variant = check_choice(self, "variant", variant, VARIANTS)
        self.alpha = positive("alpha", alpha)
        self.b = positive("b", b)
        self.temperature = positive("temperature", temperature)

    def default_distance(self) -> Distance:
        return Cosine()

    def narrow(self, batch: Batch) -> bool:
        return True

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        R, back = soft_before(rows, self.temperature)
        weights = of_positives(rows)
        costs = (self._shaped(R) * weights).sum(1)
        return Sloped((costs,), (lambda: rows.num_positives > 0,), lambda by: back(self._slope(R) * weights * by))

    def _shaped(self, R: Tensor) -> Tensor:
        if self.variant == "O":
            return R
        if self.variant == "Iu":
            return (1 + R) * torch.log1p(R)
        if self.variant == "Ib":
            return (self.b * R - torch.log1p(self.b * R)) / self.b**2
        if self.variant == "Ds":
            return torch.log1p(R)
        return -torch.expm1(-self.alpha * torch.log1p(R))

    def _slope(self, R: Tensor) -> Tensor:
        """f'(R)."""
        if self.variant == "O":
            return torch.ones_like(R)
        if self.variant == "Iu":
            return 1 + torch.log1p(R)
        if self.variant == "Ib":
            return R / (1 + self.b * R)
        if self.variant == "Ds":
            return 1 / (1 + R)
        return self.alpha * (1 + R) ** (-self.alpha - 1)

    def extra_repr(self) -> str:
        return f"variant={self.variant!r}, alpha={self.alpha}, b={self.b}, temperature={self.temperature}"
