"""Triplet margin loss.

Schroff, Kalenichenko, Philbin (2015): FaceNet: A Unified Embedding for Face Recognition and Clustering.
arXiv:1503.03832.
"""

from __future__ import annotations

from torch import nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.reducers import AvgNonZero
from nearfar.nn.terms import Terms
from nearfar_pair.triplet_terms import TripletCost, triplet_terms

__all__ = ["Triplet"]


class Triplet(EmbeddingLoss):
    r"""A negative farther from the anchor than a positive, by a margin.

    .. math:: L(a, p, n) = [d(a, p) - d(a, n) + m]_+

    with ``smooth`` :math:`\log(1 + \exp(d(a, p) - d(a, n) + m))`; with ``swap`` the nearer of anchor and positive
    stands against the negative: :math:`\min(d(a, n), d(p, n))` in place of :math:`d(a, n)`.

    Parameters
    ----------
    margin : float
        [units of the distance, 0..inf] m; 0.2 as in FaceNet, whose distances are squared:
        ``triplet(margin=0.2, distance=squared_euclidean, miner=semihard)``.
    swap : bool
        Whether the positive may take the anchor's place (Balntas et al., 2016).
    smooth : bool
        Whether softplus takes the hinge's place (Hermans et al., 2017; the paper has no margin beside it, so
        ``margin=0``).
    distance : nn.Module, optional
        What d is, a similarity being negated; Euclidean distance of normalised embeddings by default.
    reducer : nn.Module, optional
        By default the mean over the triplets that cost something.

    Raises
    ------
    ArgumentError
        The margin is negative or not finite.
    InputError
        The triplets were selected for a batch of another size.

    Notes
    -----
    Terms are ``triplet``. Without a miner it looks at every triplet. From a miner it takes triplets, or pairs,
    which are joined on their anchor. Where a miner tells them by a rule, or there is none, no triplet is ever
    made, unless a reducer asks for the values one by one: the hinge is summed from rows of distances, and with
    ``swap``, ``smooth`` or a rule on other distances a few positive pairs at a time. A reference set gives
    positives and negatives; ``swap`` then takes d(p, n) within it.

    References
    ----------
    Schroff et al. (2015), arXiv:1503.03832, equation 3; Balntas et al. (2016), BMVC; Hermans et al. (2017),
    arXiv:1703.07737.
    """

    def __init__(
        self,
        margin: float = 0.2,
        swap: bool = False,
        smooth: bool = False,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = non_negative("margin", margin)
        self.swap = bool(swap)
        self.smooth = bool(smooth)

    def default_reducer(self) -> nn.Module:
        return AvgNonZero()

    def terms(self, batch: Batch) -> Terms:
        return triplet_terms(batch, self.distance, TripletCost(self.margin, self.swap, self.smooth))

    def extra_repr(self) -> str:
        return f"margin={self.margin}, swap={self.swap}, smooth={self.smooth}"
