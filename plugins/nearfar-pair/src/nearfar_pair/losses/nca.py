"""Neighbourhood components analysis.

Goldberger, Roweis, Hinton, Salakhutdinov (2004): Neighbourhood Components Analysis. NeurIPS.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import check_choice, positive
from nearfar.nn.distances import Distance, SquaredEuclidean
from nearfar_pair.arithmetic import softplus
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped, log_odds

__all__ = ["NCA"]


class NCA(SlopedLoss):
    r"""The chance that an anchor, choosing a neighbour at random, chooses one of its class.

    .. math::
        p_i = \frac{\sum_{p \in P_i} e^{-c\, d_{ip}}}{\sum_{k \in P_i \cup N_i} e^{-c\, d_{ik}}},
        \qquad L_i = -\log p_i \quad \text{or} \quad L_i = 1 - p_i

    Parameters
    ----------
    scale : float
        (0..inf] c, over the units of the distance; 1 as in the paper, which has none. On normalised embeddings, whose
        squared distances end at 4, 10 and more is usual.
    objective : {"log", "probability"}
        ``"log"``, the paper's second, a cross-entropy; ``"probability"``, its first, the expected number of errors,
        whose gradient fades for an anchor among strangers.
    distance : nn.Module, optional
        What d is, a similarity being negated; squared Euclidean distance of normalised embeddings by default.
    reducer : nn.Module, optional
        By default the mean over the anchors with a positive.

    Raises
    ------
    ArgumentError
        The scale is not above 0, or the objective is unknown.

    Notes
    -----
    Terms are ``element``, one for each anchor with a positive. An anchor is never its own neighbour: not in the batch,
    and where a reference set repeats the batch not with a selection that leaves it out. Pairs from a miner count once
    each, however often they were selected.

    Deviation: embeddings are normalised by the default distance; the paper's are not.

    References
    ----------
    Goldberger et al. (2004), NeurIPS, equations 1 to 6.
    """

    def __init__(
        self,
        scale: float = 1.0,
        objective: Literal["log", "probability"] = "log",
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.scale = positive("scale", scale)
        self.objective = check_choice(self, "objective", objective, ("log", "probability"))

    def default_distance(self) -> Distance:
        return SquaredEuclidean()

    @property
    def loop(self) -> RowLoop:
        rule = Rule.ODDS if self.objective == "log" else Rule.PROBABILITY
        return soft_loop(rule, -self.scale, -self.scale)

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        has_positive = rows.num_positives > 0
        odds, back = log_odds(rows, rows.d_ap_or_far, rows.d_an, -self.scale)
        is_log = self.objective == "log"
        costs = softplus(odds) if is_log else torch.sigmoid(odds)

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            slope = torch.sigmoid(odds) if is_log else costs * torch.sigmoid(-odds)
            return back(torch.where(has_positive, slope * by, 0))

        return Sloped((torch.where(has_positive, costs, 0),), (lambda: has_positive,), pull)

    def extra_repr(self) -> str:
        return f"scale={self.scale}, objective={self.objective!r}"
