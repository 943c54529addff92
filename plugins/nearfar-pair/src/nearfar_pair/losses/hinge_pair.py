"""Pairwise hinge ranking loss.

Frome, Corrado, Shlens, Bengio, Dean, Ranzato, Mikolov (2013): DeViSE: A Deep Visual-Semantic Embedding Model. NeurIPS.
"""

from __future__ import annotations

from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.hinges import Hinges
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped

__all__ = ["HingePair"]


class HingePair(SlopedLoss):
    r"""Every negative less similar than each positive, by a margin; all that are not add up.

    .. math:: L_i = \frac{1}{|P_i|} \sum_{p \in P_i} \sum_{n \in N_i} [m - s_{ip} + s_{in}]_+

    Parameters
    ----------
    margin : float
        [units of the similarity, 0..inf] m; 0.1 as in the paper.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        By default the mean over the anchors with a positive.

    Raises
    ------
    ArgumentError
        The margin is negative or not finite.

    Notes
    -----
    Terms are ``element``, one for each anchor with a positive. It is the hinge of ``triplet``, summed over
    the negatives instead of averaged over the triplets that cost something, so that it falls as fewer do. In the paper
    anchors are images and references words, one the right one: ``ref_emb`` and its labels. Pairs from a miner count
    once each, however often they were selected.

    Deviation: an anchor may have several positives, over which the mean is taken.

    References
    ----------
    Frome et al. (2013), NeurIPS, equation 1.
    """

    def __init__(
        self, margin: float = 0.1, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = non_negative("margin", margin)

    def default_distance(self) -> Distance:
        return Cosine()

    def narrow(self, batch: Batch) -> bool:
        return True

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        has_positive = rows.num_positives > 0
        share = has_positive.to(rows.d_ap.dtype) / rows.num_positives.clamp_min(1)
        hinges = Hinges(self.margin).sloped(rows)
        return Sloped(
            (hinges.outputs[0] * share,), (lambda: has_positive,), lambda by: hinges.pull((share * by)[:, None])
        )

    def extra_repr(self) -> str:
        return f"margin={self.margin}"
