"""Negatives drawn so that their distances are spread evenly.

Wu, Manmatha, Smola, Krähenbühl (2017): Sampling Matters in Deep Embedding Learning. arXiv:1706.07567.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import within
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Euclidean
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection
from nearfar_pair.miners.drawn import Draws
from nearfar_pair.mining import choices
from nearfar_pair.sides import Rows

__all__ = ["DistanceWeighted"]


class DistanceWeighted(Draws, Miner):
    r"""For each positive pair a negative drawn by the inverse of how many points of a sphere lie at its distance.

    .. math::
        P(n \mid a) \propto q(\max(d(a, n), c))^{-1}, \qquad
        q(d) = d^{D-2} \left(1 - \tfrac14 d^2\right)^{(D-3)/2}, \qquad d(a, n) < c_0

    Embeddings are normalised; d is Euclidean and D the size of an embedding.

    Parameters
    ----------
    cutoff : float
        [units of the distance, 0.001..1.999] Nearer negatives are as likely as those at this distance c; 0.5 is the
        paper's (section 5).
    nonzero_loss_cutoff : float
        [units of the distance, 0.001..2] Negatives from this distance :math:`c_0` on, where the paper's margin loss
        costs nothing, are not drawn; 1.4 is the authors' code's.
    seed : int
        What the draws start from; the draws of a call come from it and from how many calls there were before.

    Raises
    ------
    ArgumentError
        A distance is out of its range, or the seed is no integer of at least 0.

    Notes
    -----
    One triplet a positive pair, by anchor and positive; an anchor without a negative nearer than :math:`c_0` has none.
    Draws are independent, so that a negative may come twice. The number of calls is in the state, so that a resumed run
    draws what an uninterrupted one does. In eval mode calls are not counted: the same batch gives the same draws.

    Weights are normalised anchor by anchor as logarithms: q spans hundreds of orders of magnitude at D = 512, and with
    one greatest weight for the batch, as elsewhere, those of most anchors vanish.

    Deviation: the authors' code draws evenly where an anchor has no negative nearer than :math:`c_0`; and the paper
    bounds the weight, which for a cutoff of at most 1.4 is the same as bounding the distance.

    References
    ----------
    Wu et al. (2017), arXiv:1706.07567, section 4.
    """

    def __init__(self, cutoff: float = 0.5, nonzero_loss_cutoff: float = 1.4, *, seed: int = 0) -> None:
        super().__init__()
        self.cutoff = within("cutoff", cutoff, 0.001, 1.999)
        self.nonzero_loss_cutoff = within("nonzero_loss_cutoff", nonzero_loss_cutoff, 0.001, 2.0)
        self.count_from(seed)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        generator = self.generator()
        size = batch.embeddings.shape[1]
        # As many draws for each anchor as one has positives: a row of weights for each pair would be P × N.
        rows = choices(batch, Euclidean(), lambda rows: self._drawn(rows, size, drawn))
        drawn = torch.rand(len(batch.embeddings), rows.sides.width, generator=generator, dtype=torch.float64)
        chosen, found = rows.outputs
        anchor, place = torch.where(found)
        return IndexSelection((anchor, rows.table[0][anchor, place], chosen[anchor, place]))

    def _drawn(self, rows: Rows, size: int, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """(r, k) a negative for each positive, and whether there is one."""
        weight = self._weights(rows.d_an, size)
        summed = weight.cumsum(1)
        total = summed[:, -1:]
        level = drawn[rows.anchors].to(total.device) * total
        level = torch.minimum(level, torch.nextafter(total, torch.zeros_like(total)))
        chosen = torch.searchsorted(summed, level, right=True).clamp_max_(weight.shape[1] - 1)
        return chosen.expand(rows.valid.shape), rows.valid & (total > 0)

    def _weights(self, d: Tensor, size: int) -> Tensor:
        """(r, m) float64, the greatest of each row 1; 0 for what is not drawn."""
        # Not a comparison that is false of NaN: what is not a number must show in the loss.
        drawable = ~(d >= self.nonzero_loss_cutoff)
        # A logarithm of 0 is not wanted where two points are opposite; nor is NaN as a weight.
        d = d.double().nan_to_num(self.cutoff).clamp(self.cutoff, 2 - 1e-6)
        log = (2 - size) * d.log() + (3 - size) / 2 * (1 - d.square() / 4).log()
        log = log.masked_fill(~drawable, -math.inf)
        greatest = log.amax(1, keepdim=True)
        return (log - greatest.masked_fill(greatest == -math.inf, 0)).exp()

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff}, nonzero_loss_cutoff={self.nonzero_loss_cutoff}, seed={self.seed}"
