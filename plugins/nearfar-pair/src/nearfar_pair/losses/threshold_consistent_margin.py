"""Threshold-consistent margin loss.

Zhang, Xu, Tang, Fang, Wu, Tighe, Xing (2024): Threshold-Consistent Margin Loss for Open-World Deep Metric Learning.
arXiv:2307.04047.
"""

from __future__ import annotations

from torch import Tensor, nn

from nearfar.nn.arguments import non_negative, within
from nearfar.nn.distances import Cosine, Distance
from nearfar.nn.reducers import AvgNonZero
from nearfar_pair.excess_losses import ExcessLoss, Line

__all__ = ["ThresholdConsistentMargin"]


class ThresholdConsistentMargin(ExcessLoss):
    r"""The pairs on the wrong side of two cosines, the same for all classes, drawn to their side.

    .. math::
        L = \lambda^+ \frac{\sum_p (m^+ - s_p) [s_p \le m^+]}{\sum_p [s_p \le m^+]}
          + \lambda^- \frac{\sum_n (s_n - m^-) [s_n \ge m^-]}{\sum_n [s_n \ge m^-]}

    Parameters
    ----------
    pos_margin : float
        [cosine, -1..1] m⁺; 0.9 as in the paper.
    neg_margin : float
        [cosine, -1..1] m⁻; 0.5 as in the paper.
    pos_weight : float
        [0..inf] λ⁺; 1 as in the paper.
    neg_weight : float
        [0..inf] λ⁻; 1 as in the paper.
    distance : nn.Module, optional
        Cosine similarity, by default and on purpose: the margins are cosines.
    reducer : nn.Module, optional
        Reduces the sub-losses ``positive`` and ``negative`` apart, and their values are added; by default each is
        averaged over the pairs that cost something.

    Raises
    ------
    ArgumentError
        An argument is out of its range.

    Notes
    -----
    Terms are ``pos_pair`` and ``neg_pair``. It calibrates what another loss learns, and is added to one:
    ``proxy_anchor + threshold_consistent_margin``. A pair that was selected twice counts twice.

    References
    ----------
    Zhang et al. (2024), arXiv:2307.04047, section 4.
    """

    def __init__(
        self,
        pos_margin: float = 0.9,
        neg_margin: float = 0.5,
        pos_weight: float = 1.0,
        neg_weight: float = 1.0,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.pos_margin = within("pos_margin", pos_margin, -1, 1)
        self.neg_margin = within("neg_margin", neg_margin, -1, 1)
        self.pos_weight = non_negative("pos_weight", pos_weight)
        self.neg_weight = non_negative("neg_weight", neg_weight)

    def default_distance(self) -> Distance:
        return Cosine()

    def default_reducer(self) -> nn.Module:
        return AvgNonZero()

    def lines(self, *of_anchor: Tensor) -> tuple[Line, Line]:
        near, far = self.pos_weight, self.neg_weight
        return Line(near, near * self.pos_margin), Line(-far, -far * self.neg_margin)

    def extra_repr(self) -> str:
        return (
            f"pos_margin={self.pos_margin}, neg_margin={self.neg_margin}, pos_weight={self.pos_weight}, "
            f"neg_weight={self.neg_weight}"
        )
