"""FastAP loss.

Cakir, He, Xia, Kulis, Sclaroff (2019): Deep Metric Learning to Rank. CVPR.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.distances import Distance, SquaredEuclidean
from nearfar_pair.row_losses import AnchorLoss
from nearfar_pair.sides import FAR, Rows

__all__ = ["FastAP"]

#: The greatest squared distance of two unit vectors.
MOST = 4.0
#: Up to so many values a row, all bins are filled at once.
FEW = 16


class FastAP(AnchorLoss):
    r"""One minus the average precision of each anchor's list, from histograms of its distances.

    .. math::
        L_i = 1 - \frac{1}{|P_i|} \sum_{j=0}^{L} \frac{H^+_j h^+_j}{H^+_j + H^-_j}, \qquad
        h^\pm_j = \sum_k \left[1 - \frac{|d_{ik} - c_j|}{\Delta}\right]_+, \qquad H_j = \sum_{l \le j} h_l

    over the anchor's positives or negatives k, with centres :math:`c_j = j \Delta` that divide [0, 4] in L.

    Parameters
    ----------
    num_bins : int
        [1..inf] L; 10 as in the paper.
    distance : nn.Module, optional
        Squared Euclidean distance of normalised embeddings, by default and on purpose: it ends at 4.
    reducer : nn.Module, optional
        By default the mean over the anchors with a positive.

    Raises
    ------
    ArgumentError
        The number of bins is no whole number of at least 1.

    Notes
    -----
    Terms are ``element``, one for each anchor with a positive. Pairs from a miner count once each, however often they
    were selected.

    References
    ----------
    Cakir et al. (2019), CVPR, equations 4 to 9.
    """

    def __init__(
        self, num_bins: int = 10, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        if isinstance(num_bins, bool) or not isinstance(num_bins, int) or num_bins < 1:
            raise ArgumentError(f"FastAP: num_bins must be a whole number of at least 1; got {num_bins!r}")
        self.num_bins = num_bins

    def default_distance(self) -> Distance:
        return SquaredEuclidean()

    def costs(self, rows: Rows, *learned: Tensor) -> tuple[Tensor, Tensor]:
        has_positive = rows.num_positives > 0
        width = MOST / self.num_bins
        H_p: Tensor = _Cumulated.apply(torch.where(rows.valid, rows.d_ap.clamp(0, MOST), FAR), width, self.num_bins)
        H_n: Tensor = _Cumulated.apply(rows.d_an, width, self.num_bins)
        h_p = H_p.diff(dim=1, prepend=H_p.new_zeros(len(H_p), 1))
        total = H_p + H_n
        # 1 − precision, so that nearly perfect lists keep their digits.
        missed = h_p * H_n / torch.where(total > 0, total, 1)
        return missed.sum(1) / rows.num_positives.clamp_min(1), has_positive

    def extra_repr(self) -> str:
        return f"num_bins={self.num_bins}"


class _Cumulated(torch.autograd.Function):
    """Cumulated soft histograms of the rows of (r, m): (r, bins + 1).

    Up to centre c a value d counts clamp(1 + (c − d) / Δ, 0, 1): the sum of its shares of all bins so far. Each value
    has a slope at one centre alone, the next one below it.
    """

    @staticmethod
    def forward(ctx: Any, d: Tensor, width: float, bins: int) -> Tensor:
        ctx.width = width
        scaled = d / width
        ctx.save_for_backward(d)
        if d.shape[1] <= FEW:
            centres = torch.arange(1, bins + 2, device=d.device)[:, None]
            return (centres - scaled[:, None]).clamp_(0, 1).sum(2)
        found = d.new_empty(bins + 1, len(d))
        buffer = torch.empty_like(d)
        for j in range(bins + 1):
            torch.sum(torch.sub(j + 1, scaled, out=buffer).clamp_(0, 1), 1, out=found[j])
        return found.T

    @staticmethod
    def backward(ctx: Any, by_found: Tensor) -> tuple[Tensor, None, None]:
        (d,) = ctx.saved_tensors
        bins = by_found.shape[1] - 1
        # What is beyond the last centre is at none.
        padded = torch.cat([by_found, by_found.new_zeros(len(by_found), 1)], 1)
        centre = (d / ctx.width).clamp_(0, bins + 1).long()  # towards 0, as the floor is from there on
        return padded.div_(-ctx.width).gather(1, centre), None, None
