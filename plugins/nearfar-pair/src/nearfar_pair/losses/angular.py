"""Angular loss.

Wang, Zhou, Wen, Liu, Lin (2017): Deep Metric Learning with Angular Loss. arXiv:1708.01682.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import within
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance, Dot
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.terms import Terms
from nearfar.nn.vectors import unit
from nearfar_pair import sides
from nearfar_pair.arithmetic import LOG2_E, log_sum_exp, softplus
from nearfar_pair.pair_pass import PairPass, Pairs
from nearfar_pair.row_pass import RowPass
from nearfar_pair.row_terms import Made, RowTerms
from nearfar_pair.sides import Rows

__all__ = ["Angular"]

#: e to twice as much, and one through it, are numbers of float32.
STEEPEST = 40.0


class Angular(EmbeddingLoss):
    r"""The angle at each negative, of the triangle that it forms with a positive pair, below a bound.

    .. math::
        L_{ap} = \log \left(1 + \sum_n e^{f_{apn}}\right), \qquad
        f_{apn} = 4 \tan^2 \alpha\, (x_a + x_p)^\top x_n - 2 (1 + \tan^2 \alpha)\, x_a^\top x_p

    Parameters
    ----------
    angle : float
        [radians, 0..1.5707963267948966) α; 0.6981317007977318, 40 degrees, one of the paper's.
    reducer : nn.Module, optional
        By default the mean over the positive pairs.

    Raises
    ------
    ArgumentError
        The angle is out of its range.

    Notes
    -----
    Terms are ``pos_pair``, one for each ordered positive pair whose anchor has a negative. Embeddings are
    normalised, all of them, as in the paper. What it needs for a pair is the sum of its two embeddings, of which a few
    rows at a time are compared with all references. Pairs from a miner count once each, however often they were
    selected.

    Deviation: the paper adds it to the N-pair loss: ``n_pair + 2 * angular``.

    References
    ----------
    Wang et al. (2017), arXiv:1708.01682, equation 8; angles in section 5.
    """

    def __init__(self, angle: float = 0.6981317007977318, *, reducer: nn.Module | None = None) -> None:
        super().__init__(reducer=reducer)
        self.angle = within("angle", angle, 0, math.nextafter(math.pi / 2, 0), "radians")

    def default_distance(self) -> Distance:
        return Dot()

    def terms(self, batch: Batch) -> Terms:
        made = self._by_products(batch) if self._is_small(batch) else self._by_pairs(batch)
        return RowTerms("pos_pair", made, labels=batch.labels)

    def _is_small(self, batch: Batch) -> bool:
        """Whether three matrices cost less than pairs, and no exponential in them is out of range."""
        n, m = len(batch.embeddings), len(batch.reference)
        return n > 0 and 0 < m * max(n, m) <= sides.SMALL and 4 * math.tan(self.angle) ** 2 <= STEEPEST

    def _by_products(self, batch: Batch) -> Made:
        """Of a small batch: the sum over the negatives is of products, so that it is a product of matrices."""
        tan2 = math.tan(self.angle) ** 2
        distance = Cosine()
        pairs = RowPass(batch, distance, _nothing)
        rows, _ = pairs.whole(_nothing)
        among = pairs.matrix if batch.is_self else -distance(batch.reference)
        of_anchor, of_positive = ((d * (-4 * tan2 * LOG2_E)).exp2() for d in (rows.d_an, among))
        threat = of_anchor @ of_positive.T
        if not rows.is_wide:
            threat = threat.gather(1, rows.positives)
        has_negative = (rows.num_negatives > 0)[:, None]
        # What is far is no positive, and costs nothing.
        costs = softplus(threat.masked_fill(~has_negative, 1).log() + 2 * (1 + tan2) * rows.d_ap)
        has_cost = rows.valid & has_negative
        return Made(pairs, (torch.where(has_cost, costs, 0), has_cost))

    def _by_pairs(self, batch: Batch) -> Made:
        x = unit(batch.embeddings)[0]
        pairs = PairPass(batch, x, x if batch.is_self else unit(batch.reference)[0], self._costs)
        return Made(pairs, pairs.outputs)

    def _costs(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """(r, k) the costs of positive pairs, 0 where there is none, and which have one."""
        tan2 = math.tan(self.angle) ** 2
        a = pairs.a.index_select(0, pairs.anchor)
        # What is far stays far, whatever is taken from it.
        far = pairs.rows.d_an.index_select(0, pairs.anchor)
        threat = log_sum_exp(torch.addmm(far, a + pairs.p, pairs.reference.T, alpha=-1), -4 * tan2)
        costs = softplus(threat - 2 * (1 + tan2) * (a * pairs.p).sum(1))
        has_cost = pairs.rows.valid & (pairs.rows.num_negatives > 0)[:, None]
        return torch.where(has_cost, pairs.table(costs), 0), has_cost

    def extra_repr(self) -> str:
        return f"angle={self.angle}"


def _nothing(rows: Rows) -> tuple[Tensor, ...]:
    return ()
