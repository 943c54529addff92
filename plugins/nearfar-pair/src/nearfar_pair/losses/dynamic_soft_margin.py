"""Dynamic soft margin loss.

Zhang, Rusinkiewicz (2019): Learning Local Descriptors with a CDF-Based Dynamic Soft Margin. ICCV.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import within
from nearfar.nn.batch import Batch
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.terms import Terms
from nearfar_pair.ends import BothEnds
from nearfar_pair.row_terms import Made, RowTerms
from nearfar_pair.sides import Rows

__all__ = ["DynamicSoftMargin"]

#: Between normalised embeddings no two distances differ by more.
RANGE = 2.0


class DynamicSoftMargin(EmbeddingLoss):
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

    def terms(self, batch: Batch) -> Terms:
        ends = BothEnds.of(batch, self.distance, self._nearest)
        there = ends.threatened
        d = torch.where(there, ends.d_ap + torch.maximum(ends.anchor, ends.positive), 0)
        place = (d.detach() + RANGE).clamp(0, 2 * RANGE) * ((self.num_bins - 1) / (2 * RANGE))
        if self.training:
            self._see(place, there)
        shares = self.histogram.to(d).cumsum(0)
        weights = shares[place.long()] / shares[-1].masked_fill(shares[-1] == 0, 1)
        return RowTerms("pos_pair", Made(ends.rows, (weights * d, there)), signed=True, labels=batch.labels)

    def _nearest(self, rows: Rows) -> tuple[Tensor, ...]:
        """How near the nearest negative is, the distances of the positives, which there are, and how many negatives."""
        return -rows.d_an.amin(1), rows.d_ap, rows.valid, rows.num_negatives

    @torch.no_grad()
    def _see(self, place: Tensor, there: Tensor) -> None:
        """Add a batch to the histogram, each pair shared linearly between the two nodes it lies between."""
        place = place.to(self.histogram)
        before = place.floor()
        share = ((place - before) * there).flatten()
        index = before.long().flatten()
        seen = torch.zeros_like(self.histogram).index_add(0, index, there.flatten().to(share) - share)
        seen = seen.index_add(0, (index + 1).clamp_max(self.num_bins - 1), share)
        count = seen.sum()
        seen = seen / count.clamp_min(1)
        mixed = torch.where(self.histogram.any(), self.histogram.lerp(seen, self.momentum), seen)
        # Distances that are no numbers must show in the loss, and not stay.
        self.histogram.copy_(torch.where((count > 0) & seen.isfinite().all(), mixed, self.histogram))

    def extra_repr(self) -> str:
        return f"num_bins={self.num_bins}, momentum={self.momentum}"
