"""Angular loss.

Wang, Zhou, Wen, Liu, Lin (2017): Deep Metric Learning with Angular Loss. arXiv:1708.01682.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import within
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance, Dot
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.selection import IndexSelection
from nearfar.nn.terms import MaterialTerms, Terms
from nearfar.nn.vectors import unit
from nearfar_pair.arithmetic import log_sum_exp, softplus
from nearfar_pair.mask_sides import sides_of
from nearfar_pair.row_pass import RowPass
from nearfar_pair.sides import Rows

__all__ = ["Angular"]


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

    Notes ----- Terms are ``pos_pair``, one for each ordered positive pair whose anchor has a negative. Embeddings are
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
        x = unit(batch.embeddings)[0]
        r = x if batch.is_self else unit(batch.reference)[0]
        table, valid = sides_of(batch, narrow=True).table(slice(0, len(x)))
        a, place = torch.where(valid)
        p = table[a, place]
        rows = RowPass(_of_pairs(batch, x[a] + r[p], r, a), self.distance, self._threats)
        threat, negatives = rows.outputs
        tan2 = math.tan(self.angle) ** 2
        costs = softplus(threat - 2 * (1 + tan2) * (x[a] * r[p]).sum(1))
        kept = torch.where(negatives > 0)[0]
        return MaterialTerms("pos_pair", costs[kept], (a[kept], p[kept]), num_anchors=len(x), labels=batch.labels)

    def _threats(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """log Σ exp of 4 tan² α times each pair's products with its negatives, and how many these are."""
        return log_sum_exp(rows.d_an, -4 * math.tan(self.angle) ** 2, rows.scratch), rows.num_negatives

    def extra_repr(self) -> str:
        return f"angle={self.angle}"


def _of_pairs(batch: Batch, sums: Tensor, reference: Tensor, anchors: Tensor) -> Batch:
    """A batch of which each element is the sum of a pair, and the negatives those of the pair's anchor."""
    selection = None
    if batch.selection is not None:
        _, _, a2, n = batch.selection.pairs()
        pair, other = torch.where(anchors[:, None] == a2)
        selection = IndexSelection((pair[:0], n[:0], pair, n[other]))
    return dataclasses.replace(
        batch,
        embeddings=sums,
        labels=None if batch.labels is None else batch.labels[anchors],
        relation=None if batch.relation is None else batch.relation.of(anchors),
        reference=reference,
        selection=selection,
        is_self=False,
        given=(sums, reference),
    )
