"""Margin loss with a learned boundary.

Wu, Manmatha, Smola, Krähenbühl (2017): Sampling Matters in Deep Embedding Learning. arXiv:1706.07567.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.arguments import finite, non_negative
from nearfar.nn.batch import Batch, check_range
from nearfar.nn.terms import MaterialTerms, Terms
from nearfar_pair.excess_losses import ExcessLoss, Line

__all__ = ["MarginBeta"]


class MarginBeta(ExcessLoss):
    r"""Positive pairs nearer than a learned boundary and negative pairs beyond it, both by a margin.

    .. math::
        L_+(a, p) = [d(a, p) - \beta_a + \alpha]_+, \qquad L_-(a, n) = [\beta_a - d(a, n) + \alpha]_+

    to whose sum over all pairs :math:`\nu \sum_a \beta_a` is added, and which is divided by the number of pairs that
    cost something, or by 1 where none does.

    Parameters
    ----------
    margin : float
        [units of the distance, 0..inf] α; 0.2 as in the paper.
    beta : float
        [units of the distance, -inf..inf] Where the boundary β begins; 1.2 as in the paper. It is a parameter.
    nu : float
        [-inf..inf] ν, how much a large boundary costs; 0 as in the authors' code.
    num_classes : int, optional
        [1..inf] Number of classes, each with a boundary of its own, as in the paper; left out, there is one for all.
    distance : nn.Module, optional
        What d is, a similarity being negated with its boundary; Euclidean distance of normalised embeddings by default.
    reducer : nn.Module, optional
        Reduces the sub-losses ``positive``, ``negative`` and ``boundary`` apart, and their values are added; by default
        each is divided by the number of pairs, of both sides, that cost something.

    Raises
    ------
    ArgumentError
        An argument is out of its range.
    InputError
        A class has no boundary, or there are boundaries of classes and no labels.

    Notes
    -----
    Terms are ``pos_pair`` and ``neg_pair``, and with ``nu`` also ``element``, one for each anchor. The
    boundary of a pair is its anchor's. The paper's miner is ``distance_weighted``, of whose triplets each gives a
    positive and a negative pair; a pair selected twice counts twice.

    Deviation: the paper also has a boundary for each image, which its code does not.

    References
    ----------
    Wu et al. (2017), arXiv:1706.07567, equations 4 to 6.
    """

    def __init__(
        self,
        margin: float = 0.2,
        beta: float = 1.2,
        nu: float = 0.0,
        num_classes: int | None = None,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = non_negative("margin", margin)
        self.nu = finite("nu", nu)
        if num_classes is not None and not num_classes >= 1:
            raise ArgumentError(f"MarginBeta: num_classes must be at least 1; got {num_classes}")
        self.num_classes = num_classes
        self._start = finite("beta", beta)
        self.beta = nn.Parameter(torch.full(() if num_classes is None else (num_classes,), self._start))

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        beta = self.beta.to(batch.embeddings.dtype)
        if self.num_classes is None:
            return (beta,)
        if batch.labels is None:
            raise InputError(
                "MarginBeta with num_classes has a boundary for each class, so it needs class ids for labels"
            )
        expected = f"MarginBeta has num_classes={self.num_classes}, so labels run from 0 to {self.num_classes - 1}"
        check_range(batch.labels, self.num_classes, expected + "; got labels from {low} to {high}")
        return (beta[batch.labels],)

    def lines(self, *of_anchor: Tensor) -> tuple[Line, Line]:
        (beta,) = of_anchor
        boundary = -beta if self.distance.is_inverted else beta
        return Line(1, self.margin - boundary), Line(-1, self.margin + boundary)

    def by_learned(self, positive: tuple[Any, Any], negative: tuple[Any, Any]) -> tuple[Any]:
        by_boundary = negative[1] - positive[1]
        return (-by_boundary if self.distance.is_inverted else by_boundary,)

    def normalizer(self, batch: Batch, active: Callable[[], Tensor]) -> Tensor:
        return active()

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        terms = dict(super().terms(batch))
        if self.nu:
            of_anchor = self.nu * self.learned(batch)[0].expand(len(batch.embeddings))
            paired = sum(side.count_by_anchor() for side in terms.values())
            anchors = torch.where(torch.as_tensor(paired) > 0)[0]
            terms["boundary"] = MaterialTerms(
                "element",
                of_anchor[anchors],
                (anchors,),
                num_anchors=len(of_anchor),
                normalizer=terms["positive"].normalizer,
                labels=batch.labels,
            )
        return terms

    def extra_repr(self) -> str:
        return f"margin={self.margin}, beta={self._start}, nu={self.nu}, num_classes={self.num_classes}"
