"""Contrastive loss.

Hadsell, Chopra, LeCun (2006): Dimensionality Reduction by Learning an Invariant Mapping. CVPR.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from nearfar.nn.arguments import check_choice, finite
from nearfar.nn.batch import Batch
from nearfar.nn.reducers import AvgNonZero
from nearfar.nn.terms import Terms
from nearfar_pair.excess_losses import ExcessLoss, Line
from nearfar_pair.graded import graded_sides
from nearfar_pair.links import HINGE, SQUARED_HINGE
from nearfar_pair.row_losses import threshold

__all__ = ["Contrastive"]


class Contrastive(ExcessLoss):
    r"""Positive pairs within one distance, negative pairs beyond another.

    .. math::
        L_+(a, p) = [d(a, p) - m_+]_+^2, \qquad L_-(a, n) = [m_- - d(a, n)]_+^2

    and without the squares for ``hinge="linear"``. For a similarity s the margins are similarities:
    :math:`[m_+ - s]_+` and :math:`[s - m_-]_+`.

    Parameters
    ----------
    pos_margin : float
        [units of the distance, -inf..inf] m₊, the distance up to which a positive pair costs nothing; 0 as in
        the paper, which has none. For cosine similarity it is 1, to rounding: one point twice may cost 1e-7 there, and
        count.
    neg_margin : float
        [units of the distance, -inf..inf] m₋, the distance from which on a negative pair costs nothing. For
        cosine similarity 0 to 0.5 is usual; 1 would make every negative pair cost nothing.
    hinge : {"squared", "linear"}
        ``"squared"`` as in the paper, or ``"linear"`` as in pytorch-metric-learning.
    distance : nn.Module, optional
        What d is; Euclidean distance of normalised embeddings by default.
    reducer : nn.Module, optional
        Reduces the sub-losses ``positive`` and ``negative`` apart, and their values are added; by default each
        is averaged over the pairs that cost something.

    Raises
    ------
    ArgumentError
        A margin is not a finite number, or the hinge is unknown.

    Notes
    -----
    Terms are ``pos_pair`` and ``neg_pair``, one for each ordered pair. From a miner it takes pairs, or
    triplets, of which each gives a positive and a negative pair; a pair selected twice counts twice.

    Where labels grade how relevant a pair is, ψ from 0 to 1, it costs :math:`\psi L_+ + (1 - \psi) L_-`: the
    generalized contrastive loss of Leyva-Vallina et al. (2021), arXiv:2103.06638, without its factor ½. A pair then has
    a term on either side, but none as a positive where ψ is 0 and none as a negative where ψ is 1.

    Deviations: the paper's factor ½ is left out, the two sides are averaged apart so that the many negative
    pairs do not drown the few positive ones, and embeddings are normalised.

    References
    ----------
    Hadsell et al. (2006), CVPR, equation 4.
    """

    graded = True

    def __init__(
        self,
        pos_margin: float = 0.0,
        neg_margin: float = 1.0,
        hinge: Literal["squared", "linear"] = "squared",
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.pos_margin = finite("pos_margin", pos_margin)
        self.neg_margin = finite("neg_margin", neg_margin)
        self.hinge = check_choice(self, "hinge", hinge, ("squared", "linear"))
        self.link = SQUARED_HINGE if self.hinge == "squared" else HINGE

    def default_reducer(self) -> nn.Module:
        return AvgNonZero()

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        return graded_sides(self, batch) if batch.is_graded else super().terms(batch)

    def lines(self, *of_anchor: Tensor) -> tuple[Line, Line]:
        near, far = (threshold(self.distance, margin) for margin in (self.pos_margin, self.neg_margin))
        return Line(1, -near), Line(-1, far)

    def extra_repr(self) -> str:
        return f"pos_margin={self.pos_margin}, neg_margin={self.neg_margin}, hinge={self.hinge!r}"
