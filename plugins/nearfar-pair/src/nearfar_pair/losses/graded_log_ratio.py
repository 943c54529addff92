"""Log-ratio loss.

Kim, Seo, Laptev, Cho, Kwak (2019): Deep Metric Learning Beyond Binary Supervision. CVPR. arXiv:1904.09626.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.arguments import positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance, Euclidean
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.terms import Terms
from nearfar_pair.graded import of_positives
from nearfar_pair.row_pass import RowPass
from nearfar_pair.row_terms import RowTerms
from nearfar_pair.sides import Rows

__all__ = ["GradedLogRatio"]


class GradedLogRatio(EmbeddingLoss):
    r"""Ratios of distances between embeddings as those between their labels.

    .. math::
        L_a = \frac{2}{K (K - 1)} \sum_{i < j} \left(
            \log \frac{D(f_a, f_i) + \epsilon}{D(f_a, f_j) + \epsilon}
            - \log \frac{D(y_a, y_i) + \epsilon}{D(y_a, y_j) + \epsilon} \right)^2

    i and j run over the K references of anchor a. The distance of two labels is that of the points of the rule
    ``gaussian``, one minus the grade by the other rules and of ``Grades``; of class ids and multi-hot labels 0 where
    they belong together, 1 where not.

    Parameters
    ----------
    epsilon : float
        (units of the distance, 0..inf] ε, below which distances of embeddings and of labels are not told apart; 1e-6 as
        in the authors' code.
    distance : nn.Module, optional
        D of embeddings, a distance and no similarity; Euclidean distance of embeddings as they are by default: that the
        loss needs no normalisation is a point of the paper.
    reducer : nn.Module, optional
        By default the mean over the anchors with at least two references.

    Raises
    ------
    ArgumentError
        ε is not above 0, or the distance is a similarity.
    InputError
        When called: with an ``indices_tuple``.

    Notes
    -----
    Terms are ``element``, one for each anchor with at least two references. No triple is made: the mean of squared
    differences over all pairs is twice the variance of the log-ratios of an anchor. The loss does not change when all
    embeddings are multiplied with a number, but for ε, nor when all labels of a ``gaussian`` are.

    Deviations: the paper's batch is one anchor with its nearest neighbours by label and others drawn at random; here
    every sample of a batch is an anchor.

    References
    ----------
    Kim et al. (2019), arXiv:1904.09626, equation 4; ε and the unsquared distances are those of the authors' code.
    """

    graded = True

    def __init__(
        self, epsilon: float = 1e-6, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.epsilon = positive("epsilon", epsilon)
        if self.distance.is_inverted:
            raise ArgumentError(
                f"GradedLogRatio takes ratios of distances, and {type(self.distance).__name__} is a similarity"
            )

    def default_distance(self) -> Distance:
        return Euclidean(normalize=False)

    def terms(self, batch: Batch) -> Terms:
        if batch.selection is not None:
            raise InputError("GradedLogRatio compares all references of an anchor, so it takes no indices_tuple")
        rows = RowPass(batch, self.distance, partial(self._costs, batch))
        return RowTerms("element", rows, labels=batch.labels)

    def _costs(self, batch: Batch, rows: Rows) -> tuple[Tensor, Tensor]:
        apart = batch.apart(rows.anchors)
        if not apart.shape[1]:
            apart = torch.zeros_like(rows.d_an)
        missing = (~rows.valid, ~rows.is_negative)
        ratios = (
            self._log_ratio(rows.d_ap, of_positives(lambda _: apart, rows), missing[0]),
            self._log_ratio(rows.d_an, apart, missing[1]),
        )
        count = rows.num_positives + rows.num_negatives
        mean = ((ratios[0].sum(1) + ratios[1].sum(1)) / count.clamp_min(1))[:, None]
        # From the mean rather than as a difference of sums of squares, which would cancel.
        off = [(ratio - mean).masked_fill(left, 0) for ratio, left in zip(ratios, missing, strict=True)]
        squares = off[0].square().sum(1) + off[1].square().sum(1)
        return 2 * squares / (count - 1).clamp_min(1), count > 1

    def _log_ratio(self, d: Tensor, apart: Tensor, missing: Tensor) -> Tensor:
        """log (d + ε) / (apart + ε), and 0 of what is missing."""
        return ((d.masked_fill(missing, 1) + self.epsilon) / (apart.masked_fill(missing, 1) + self.epsilon)).log()

    def extra_repr(self) -> str:
        return f"epsilon={self.epsilon}"
