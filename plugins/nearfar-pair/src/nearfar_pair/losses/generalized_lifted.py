"""Generalised lifted structure loss.

Hermans, Beyer, Leibe (2017): In Defense of the Triplet Loss for Person Re-Identification. arXiv:1703.07737.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import finite
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped, soft_extreme

__all__ = ["GeneralizedLifted"]


class GeneralizedLifted(SlopedLoss):
    r"""All positives of an anchor nearer than all its negatives, by a margin, as smooth maxima.

    .. math::
        L_i = \left[\log \sum_{p \in P_i} e^{d_{ip}} + \log \sum_{n \in N_i} e^{m - d_{in}}\right]_+

    Parameters
    ----------
    margin : float
        [units of the distance, -inf..inf] m; 1, pytorch-metric-learning's, as the paper gives none.
    distance : nn.Module, optional
        What d is, a similarity being negated; Euclidean distance of normalised embeddings by default.
    reducer : nn.Module, optional
        By default the mean over the anchors with a positive and a negative.

    Raises
    ------
    ArgumentError
        The margin is not a finite number.

    Notes
    -----
    Terms are ``element``, one for each anchor with a positive and a negative; the others, which the paper's batches do
    not have, are left out. Pairs from a miner count once each, however often they were selected.

    Deviation: embeddings are normalised by the default distance; the paper's are not:
    ``generalized_lifted(distance=euclidean(normalize=False))``.

    References
    ----------
    Hermans et al. (2017), arXiv:1703.07737, equation 8.
    """

    def __init__(
        self, margin: float = 1.0, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = finite("margin", margin)

    @property
    def loop(self) -> RowLoop:
        return soft_loop(Rule.HINGE_OF_BOTH, 1, -1, self.margin)

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        p, by_ap = soft_extreme(rows.d_ap)
        n, by_an = soft_extreme(rows.d_an, -1, rows.scratch)
        has_both = rows.has_both
        costs = torch.relu(torch.where(has_both, p + n + self.margin, 0))

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_excess = costs.sign() * by
            return by_ap(by_excess), by_an(by_excess)

        return Sloped((costs,), (lambda: has_both,), pull)

    def extra_repr(self) -> str:
        return f"margin={self.margin}"
