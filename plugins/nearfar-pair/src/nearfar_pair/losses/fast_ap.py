"""FastAP loss.

Cakir, He, Xia, Kulis, Sclaroff (2019): Deep Metric Learning to Rank. CVPR.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance, SquaredEuclidean
from nearfar.nn.precision import in_full_precision
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.row_pass import is_table_cheaper
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped

__all__ = ["FastAP"]

#: The greatest squared distance of two unit vectors.
MOST = 4.0
#: Bins that float32 still tells apart.
MANY = 2**16
#: Elements of the rows that are gone through once for each bin; up to so many of all bins are made at once.
BLOCK = 2**16


class FastAP(SlopedLoss):
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

    def narrow(self, batch: Batch) -> bool:
        return is_table_cheaper(batch)

    @property
    def loop(self) -> RowLoop | None:
        if self.num_bins > MANY:
            return None
        return RowLoop("fast_ap", (self.num_bins, MOST, 0, 0, 0), lambda costs, counts, work: (costs, counts > 0))

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        bins, width = self.num_bins, MOST / self.num_bins
        near = rows.d_ap_or_far
        H_p = _cumulated(near, rows.num_positives, width, bins)
        H_n = _cumulated(rows.d_an, rows.num_negatives, width, bins)
        size = rows.num_positives.to(H_p.dtype)[:, None]
        # A positive that is farther than any two unit vectors is in the last bin.
        H_p = torch.cat([H_p[:, :-1], size], 1)
        h_p = H_p - F.pad(H_p[:, :-1], (1, 0))
        total = (H_p + H_n).clamp_min(torch.finfo(H_p.dtype).tiny)
        # 1 − precision, so that nearly perfect lists keep their digits.
        missed = H_n / total
        size = size.clamp_min(1)

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_costs = by / size
            share = h_p / total * by_costs
            by_h = missed * by_costs
            # A value is in all bins from its own on: what a centre gains in h the next one loses.
            by_H_p = by_h[:, :-1] - by_h[:, 1:] - (share * missed)[:, :-1]
            by_an = _by_distance(rows.d_an, share * (1 - missed), width, bins, rows.scratch)
            return _by_distance(near, by_H_p, width, bins), by_an

        costs = torch.linalg.vecdot(h_p, missed) / size[:, 0]
        return Sloped((costs,), (lambda: rows.num_positives > 0,), pull)

    def extra_repr(self) -> str:
        return f"num_bins={self.num_bins}"


def _cumulated(d: Tensor, sizes: Tensor, width: float, bins: int) -> Tensor:
    """Cumulated soft histograms of the rows of (r, m), in each of which so many (r,) are not far: (r, bins + 1)."""
    return _Cumulated.apply(d, sizes, width, bins) if torch.is_grad_enabled() else _histograms(d, sizes, width, bins)


class _Cumulated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, d: Tensor, sizes: Tensor, width: float, bins: int) -> Tensor:
        ctx.even = width, bins
        ctx.save_for_backward(d)
        return _histograms(d, sizes, width, bins)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by_found: Tensor) -> tuple[Tensor, None, None, None]:
        (d,) = ctx.saved_tensors
        return _by_distance(d, by_found, *ctx.even), None, None, None


def _histograms(d: Tensor, sizes: Tensor, width: float, bins: int) -> Tensor:
    """Up to centre c a value d counts clamp(1 + (c − d) / Δ, 0, 1): the sum of its shares of all bins so far."""
    if d.numel() * (bins + 1) <= BLOCK:
        centres = torch.arange(1, bins + 2, device=d.device)[:, None]
        return (centres - (d / width)[:, None]).clamp_(0, 1).sum(2)
    found, sizes = d.new_zeros(bins + 1, len(d)), sizes.to(d.dtype)
    for some in _blocks(d):
        scaled = d[some] / width
        buffer = torch.empty_like(scaled)
        for j in range(_first(scaled, bins), bins + 1):
            torch.sum(torch.sub(j + 1, scaled, out=buffer).clamp_(0, 1), 1, out=found[j, some])
            if _may_ask(d) and torch.equal(found[j, some], sizes[some]):
                found[j + 1 :, some] = sizes[some]
                break
    return found.T


def _first(scaled: Tensor, bins: int) -> int:
    """Up to which bin there is nothing: distances of many dimensions lie in few bins."""
    least = scaled.amin().item() if _may_ask(scaled) else 0
    return int(least) if 0 <= least <= bins else 0


def _may_ask(d: Tensor) -> bool:
    """Whether what comes next may depend on numbers: a GPU would be waited for, and torch.compile cannot follow."""
    return d.device.type == "cpu" and not torch.compiler.is_compiling()


def _by_distance(d: Tensor, by_found: Tensor, width: float, bins: int, out: Tensor | None = None) -> Tensor:
    """(r, m) the gradient by values, of that by their histograms: each has a slope at the next centre below it.

    At centres that are not among these it has none.
    """
    padded = F.pad(by_found / -width, (0, bins + 2 - by_found.shape[1]))

    def part(some: slice, out: Tensor | None = None) -> Tensor:
        # Towards 0, as the floor is from there on; what is no number has to lie somewhere.
        place = (d[some] / width).clamp_max_(bins + 1).long().clamp_min_(0)
        return torch.gather(padded[some], 1, place, out=out)

    if out is not None:
        for some in _blocks(d):
            part(some, out[some])
        return out
    parts = [part(some) for some in _blocks(d)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _blocks(d: Tensor) -> Iterator[slice]:
    """A few rows after another, of which all that is made of them stays in a cache near the processor."""
    step = max(1, BLOCK // d.shape[1] if d.device.type == "cpu" else len(d))
    return (slice(start, start + step) for start in range(0, max(1, len(d)), step))
