"""Dynamic soft margin loss.

Zhang, Rusinkiewicz (2019): Learning Local Descriptors with a CDF-Based Dynamic Soft Margin. ICCV.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import within
from nearfar_pair.end_losses import BothEndsLoss, Cost, Costs, share_of_larger
from nearfar_pair.ends import BothEnds
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Pull, nearest

__all__ = ["DynamicSoftMargin"]

#: Between normalised embeddings no two distances differ by more.
RANGE = 2.0


class DynamicSoftMargin(BothEndsLoss):
    r"""A positive nearer than the hardest negative, weighed by how hard that is among all there have been.

    .. math::
        L_{ap} = F(d) \, d, \qquad d = d(a, p) - \min\left(\min_{n \in N_a} d(a, n), \min_{n \in N_p} d(p, n)\right)

    where F is the distribution of d, a histogram of what lately was seen: the share of pairs that were easier. It
    stands in the place of a margin, which need not be chosen.

    Parameters
    ----------
    num_bins : int
        [2..inf] Nodes of the histogram over [−2, 2]; 512 as in the authors' code.
    momentum : float
        [0..1] How much of the histogram each batch makes; 0.01 as in the authors' code.
    distance : nn.Module, optional
        Euclidean distance of normalised embeddings, by default and on purpose: the histogram covers its differences.
    reducer : nn.Module, optional
        By default the mean over the positive pairs.

    Raises
    ------
    ArgumentError
        The number of nodes or the momentum is out of its range.

    Notes
    -----
    Terms are ``pos_pair``, one for each ordered positive pair of which an end has a negative; they may be below zero,
    and ``avg_non_zero`` takes those for satisfied. ``histogram`` (num_bins,) is a buffer of shares, all zero until
    the first batch with a pair, which it becomes; it is renewed in each call in training mode before it is used, and
    does not change in evaluation mode. The weights are constants. With a reference set the negatives of its end of a
    pair are the embeddings of other classes. Pairs from a miner count once each, however often they were selected.

    Deviation: the authors' code leaves out negatives nearer than 0.008, which it takes for the same patch.

    References
    ----------
    Zhang, Rusinkiewicz (2019), ICCV, section 3.
    """

    signed = True
    histogram: Tensor

    def __init__(
        self,
        num_bins: int = 512,
        momentum: float = 0.01,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        if isinstance(num_bins, bool) or not isinstance(num_bins, int) or num_bins < 2:
            raise ArgumentError(f"DynamicSoftMargin: num_bins must be a whole number of at least 2; got {num_bins!r}")
        self.num_bins = num_bins
        self.momentum = within("momentum", momentum, 0.0, 1.0)
        self.register_buffer("histogram", torch.zeros(num_bins))

    def threat(self, rows: Rows) -> tuple[Tensor, Pull]:
        return nearest(rows.d_an)

    def cost(self) -> Cost:
        weights: Tensor | None = None

        def cost(ends: BothEnds) -> Costs:
            nonlocal weights
            d = ends.d_ap + torch.maximum(ends.anchor, ends.positive)
            # Whoever asks again gets the same, as the batch is seen once.
            weights = found = self._weights(d.detach(), ends.threatened) if weights is None else weights

            def pull(by: Any) -> tuple[Tensor, Tensor, Tensor]:
                by_d = found * by
                by_anchor = share_of_larger(ends.anchor, ends.positive) * by_d
                return by_d, by_anchor, by_d - by_anchor

            return Costs(found * d, pull)

        return cost

    @torch.no_grad()
    def _weights(self, d: Tensor, there: Tensor) -> Tensor:
        """(n, k) the share of pairs that were easier, 0 where there is no pair; in training the batch is seen first."""
        place = (d.flatten() + RANGE).clamp_(0, 2 * RANGE).mul_((self.num_bins - 1) / (2 * RANGE)).to(self.histogram)
        # A distance that is no number has to lie somewhere.
        node = place.long().clamp_(0, self.num_bins - 1)
        one = there.to(place.dtype).flatten()
        if self.training:
            self._see(node, place - node, one)
        shares = self.histogram.to(d).cumsum(0)
        shares = shares / shares[-1].clamp_min(torch.finfo(shares.dtype).tiny)
        return shares.index_select(0, node).mul_(one).view_as(d)

    def _see(self, node: Tensor, beyond: Tensor, weight: Tensor) -> None:
        """Add a batch to the histogram, each pair shared linearly between the two nodes it lies between."""
        beyond = beyond * weight
        seen = weight.new_zeros(self.num_bins + 1)  # beyond the last node lies nothing
        seen = seen.index_add_(0, node, weight - beyond).index_add_(0, node + 1, beyond)[:-1]
        count = seen.sum()
        # The first batch becomes the histogram.
        rate = 1 - self.histogram.any().to(seen.dtype) * (1 - self.momentum)
        # Distances that are no numbers, of which the count is none either, must show in the loss, and not stay.
        self.histogram.copy_(torch.where(count > 0, self.histogram.lerp(seen / count, rate), self.histogram))

    def extra_repr(self) -> str:
        return f"num_bins={self.num_bins}, momentum={self.momentum}"
