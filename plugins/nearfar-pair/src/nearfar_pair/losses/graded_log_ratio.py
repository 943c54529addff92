"""Log-ratio loss.

Kim, Seo, Laptev, Cho, Kwak (2019): Deep Metric Learning Beyond Binary Supervision. CVPR. arXiv:1904.09626.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.arguments import positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance, Euclidean
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.precision import in_full_precision
from nearfar.nn.selection import distance_matrix
from nearfar.nn.terms import Terms, element_terms
from nearfar_pair.again import again
from nearfar_pair.graded import of_positives
from nearfar_pair.row_pass import RowPass
from nearfar_pair.row_terms import RowTerms
from nearfar_pair.sides import SMALL, Rows

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
        n, m = len(batch.embeddings), len(batch.reference)
        count = m - 1 if batch.is_self else m
        if batch.relation is None and batch.labels is not None and n * m <= SMALL and count > 1:
            return element_terms(self._of_classes(batch, count), labels=batch.labels)
        rows = RowPass(batch, self.distance, functools.partial(self._costs, batch))
        return RowTerms("element", rows, labels=batch.labels)

    def _of_classes(self, batch: Batch, count: int) -> Tensor:
        """(n,) from the matrix as a whole: of a small batch calling torch costs more than its work."""
        d = distance_matrix(self.distance, batch)
        near, far = self._log_of_classes
        of_labels = torch.where(batch.positive_mask(), d.new_full((), near), far)
        none = torch.eye(len(of_labels), dtype=torch.bool, device=of_labels.device) if batch.is_self else None
        ratios = _Ratios((of_labels,), (none,), count, self.epsilon)
        costs: Tensor = _Spread.apply(ratios, d)
        return costs

    def _costs(self, batch: Batch, rows: Rows) -> tuple[Tensor, Tensor]:
        count = rows.num_positives + rows.num_negatives
        ratios = _Ratios(self._log_labels(batch, rows), (~rows.valid, ~rows.is_negative), count, self.epsilon)
        costs: Tensor = _Spread.apply(ratios, rows.d_ap, rows.d_an)
        return costs, count > 1

    def _log_labels(self, batch: Batch, rows: Rows) -> tuple[Tensor | float, Tensor | float]:
        """log (D(y) + ε) of the positives, (r, k), and of all references, (r, m); a number where it is one for all."""
        if not batch.is_graded:
            return self._log_of_classes
        apart = batch.apart(rows.anchors)
        if not apart.shape[1]:
            apart = torch.zeros_like(rows.d_an)
        apart = apart.to(rows.d_an)
        near = of_positives(lambda _: apart, rows)
        return (near + self.epsilon).log(), (apart + self.epsilon).log()

    @property
    def _log_of_classes(self) -> tuple[float, float]:
        return math.log(self.epsilon), math.log(1 + self.epsilon)

    def extra_repr(self) -> str:
        return f"epsilon={self.epsilon}"


@dataclass(frozen=True, slots=True, eq=False)
class _Ratios:
    """What there is besides the distances of an anchor, in one part or more, of which each is a matrix of r rows.

    Attributes
    ----------
    of_labels
        Of each part log (D(y) + ε).
    missing
        Of each part which distances are none; None where all are.
    count
        How many distances an anchor has, or (r,).
    epsilon
        ε.
    """

    of_labels: tuple[Tensor | float, ...]
    missing: tuple[Tensor | None, ...]
    count: Tensor | int
    epsilon: float

    def off(self, *parts: Tensor) -> list[Tensor]:
        """How far each log-ratio is off the mean of its anchor, 0 for what is none."""
        logs = [
            _without((_without(d, missing, 1) + self.epsilon).log() - of_label, missing)
            for d, missing, of_label in zip(parts, self.missing, self.of_labels, strict=True)
        ]
        mean = (_added(log.sum(1) for log in logs) / _at_least_one(self.count))[:, None]
        # From the mean rather than as a difference of sums of squares, which would cancel.
        return [_without(log - mean, missing) for log, missing in zip(logs, self.missing, strict=True)]

    def costs(self, off: Sequence[Tensor]) -> Tensor:
        """(r,) twice the variance."""
        return 2 * _added(torch.linalg.vecdot(part, part) for part in off) / _at_least_one(self.count - 1)

    def slopes(self, parts: Sequence[Tensor], off: Sequence[Tensor], by: Tensor) -> list[Tensor]:
        """Gradients of the distances from that of the costs."""
        # What is off the mean adds up to nothing, so that nothing comes by way of the mean.
        by = (4 * by / _at_least_one(self.count - 1))[:, None]
        return [part * by / (d + self.epsilon) for d, part in zip(parts, off, strict=True)]


def _without(x: Tensor, missing: Tensor | None, value: float = 0) -> Tensor:
    return x if missing is None else x.masked_fill(missing, value)


def _added(parts: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _at_least_one(count: Tensor | int) -> Tensor | int:
    return count.clamp_min(1) if isinstance(count, Tensor) else max(1, count)


class _Spread(torch.autograd.Function):
    """(r,) twice the variance of the log-ratios of each anchor."""

    @staticmethod
    def forward(ctx: Any, ratios: _Ratios, *parts: Tensor) -> Tensor:
        off = ratios.off(*parts)
        ctx.ratios = ratios
        ctx.save_for_backward(*parts, *off)
        return ratios.costs(off)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        saved, ratios = ctx.saved_tensors, ctx.ratios
        parts, off = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        if torch.is_grad_enabled():
            return None, *again(lambda *given: [ratios.costs(ratios.off(*given))], parts, [by])
        return None, *ratios.slopes(parts, off, by)
