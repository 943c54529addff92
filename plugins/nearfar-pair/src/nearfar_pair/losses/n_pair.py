"""Multi-class N-pair loss.

Sohn (2016): Improved Deep Metric Learning with Multi-class N-pair Loss Objective. NeurIPS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance, Dot
from nearfar.nn.terms import Terms
from nearfar_pair.arithmetic import softplus
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.once import once
from nearfar_pair.row_losses import PositiveLoss, SlopedLoss
from nearfar_pair.row_pass import RowPass
from nearfar_pair.row_terms import RowTerms
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped, soft_extreme

__all__ = ["NPair"]


class _Lengths(Terms):
    """The squared length of each embedding that is an anchor, times a weight."""

    kind = "element"

    def __init__(self, embeddings: Tensor, is_anchor: Tensor, weight: float, labels: Tensor | None) -> None:
        self.num_anchors, self.labels = len(embeddings), labels
        self._embeddings, self._is_anchor, self._weight = embeddings, is_anchor, weight

    @property
    def values(self) -> Tensor:
        return self._weight * self._embeddings[self._is_anchor].square().sum(1)

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return torch.where(self._is_anchor)

    @once
    def _is_full(self) -> bool:
        """Whether all are known to be anchors: a GPU would be waited for, and torch.compile cannot follow."""
        return self._embeddings.is_cpu and not torch.compiler.is_compiling() and bool(self._is_anchor.all())

    @property
    def size(self) -> int | None:
        return self.num_anchors if self._is_full else None

    def sum(self) -> Tensor:
        kept = self._embeddings if self._is_full else torch.where(self._is_anchor.unsqueeze(1), self._embeddings, 0)
        return self._weight * kept.square().sum()

    def sum_positive(self) -> Tensor:
        return self.sum()

    def count(self) -> Tensor:
        return self._is_anchor.sum()


class NPair(SlopedLoss, PositiveLoss):
    r"""A positive whose inner product with the anchor is above those of all negatives, and embeddings kept short.

    .. math::
        L_{ap} = \log \left(1 + \sum_n e^{f_a^\top f_n - f_a^\top f_p}\right), \qquad R_a = \lambda \lVert f_a \rVert^2

    Parameters
    ----------
    l2_weight : float
        [0..inf] λ, which the paper has and gives no value; 0.002, that of TensorFlow's ``npairs_loss``.
    distance : nn.Module, optional
        In place of the inner product of embeddings as they are; a distance is negated.
    reducer : nn.Module, optional
        Reduces the sub-losses ``pairs`` and ``lengths`` apart, and their values are added; by default each is averaged.

    Raises
    ------
    ArgumentError
        The weight is negative or not finite.

    Notes
    -----
    Terms are ``pos_pair``, one for each ordered positive pair, and ``element``, one for each anchor that has one; a
    reference set is not held short. The paper's batch has one pair of each class: anchors as ``embeddings``, positives
    as ``ref_emb`` give just its terms. In a plain batch every sample is an anchor, and all of other classes are its
    negatives. Pairs from a miner count once each, however often they were selected.

    Deviation: TensorFlow's code has ¼ of the mean squared length of anchors and of positives, here each anchor's counts
    once and whole.

    References
    ----------
    Sohn (2016), NeurIPS, equation 6 and section 3.2.2.
    """

    def __init__(
        self, l2_weight: float = 0.002, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.l2_weight = non_negative("l2_weight", l2_weight)

    def default_distance(self) -> Distance:
        return Dot()

    @property
    def loop(self) -> RowLoop:
        return soft_loop(Rule.EACH_ODDS, -1, -1)

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        n, by_an = soft_extreme(rows.d_an, -1, rows.scratch)
        # Where there is no positive or no negative this is −1e18, which costs nothing and has no slope.
        z = n[:, None] + rows.d_ap

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_z = torch.sigmoid(z).mul_(by)
            return by_z, by_an(by_z.sum(1))

        return Sloped((softplus(z),), (lambda: rows.valid,), pull)

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        narrow = self.narrow(batch)
        rows = RowPass(batch, self.distance, self.costs, sloped=self.sloped, narrow=narrow, loop=self.loop)
        pairs = RowTerms("pos_pair", rows, labels=batch.labels)
        if not self.l2_weight:
            return {"pairs": pairs}
        lengths = _Lengths(batch.embeddings, pairs.count_by_anchor() > 0, self.l2_weight, batch.labels)
        return {"pairs": pairs, "lengths": lengths}

    def extra_repr(self) -> str:
        return f"l2_weight={self.l2_weight}"
