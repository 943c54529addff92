"""Smooth-AP loss.

Brown, Xie, Kalogeiton, Zisserman (2020): Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval.
arXiv:2007.12163.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar.nn.terms import Terms
from nearfar_pair.graded import graded_costs, soft_excess
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped
from nearfar_pair.soft_ranks import of_positives, soft_among, soft_before

__all__ = ["SmoothAP"]


class SmoothAP(SlopedLoss):
    r"""One minus the average precision of each anchor's list, its ranks counted by a sigmoid.

    .. math::
        L_i = 1 - \frac{1}{|P_i|} \sum_{p \in P_i}
            \frac{1 + \sum_{q \in P_i \setminus p} G(s_{iq} - s_{ip})}
                 {1 + \sum_{q \in P_i \setminus p} G(s_{iq} - s_{ip}) + \sum_{n \in N_i} G(s_{in} - s_{ip})},
        \qquad G(x) = \frac{1}{1 + e^{-x / \tau}}

    Parameters
    ----------
    temperature : float
        (units of the similarity, 0..inf] τ; 0.01 as in the paper. The larger it is, the more pairs get a gradient, and
        the looser the bound.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        By default the mean over the anchors with a positive.

    Raises
    ------
    ArgumentError
        The temperature is not a finite number above 0.

    Notes
    -----
    Terms are ``element``, one for each anchor with a positive. Classes may be of any sizes, in any order. Pairs from a
    miner count once each, however often they were selected.

    Where labels grade how relevant a reference is, ψ from 0 to 1, it is one minus the hierarchical average precision of
    Ramzi et al. (2022), arXiv:2207.04873, equation 2, its ranks counted by the same sigmoid:

    .. math::
        L_i = 1 - \frac{1}{\sum_p \psi_{ip}} \sum_{p \in P_i}
            \frac{\psi_{ip} + \sum_{q \in P_i \setminus p} \min(\psi_{ip}, \psi_{iq}) G(s_{iq} - s_{ip})}
                 {1 + \sum_{q \in P_i \setminus p} G(s_{iq} - s_{ip}) + \sum_{n \in N_i} G(s_{in} - s_{ip})}

    with those of positive grade in P. The paper has another surrogate of the ranks, and a clustering loss beside.

    References
    ----------
    Brown et al. (2020), arXiv:2007.12163, equations 5 and 6; the temperature in section 5.
    """

    graded = True

    def __init__(
        self, temperature: float = 0.01, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.temperature = positive("temperature", temperature)

    def default_distance(self) -> Distance:
        return Cosine()

    def narrow(self, batch: Batch) -> bool:
        return True

    def terms(self, batch: Batch) -> Terms | Mapping[str, Terms]:
        if batch.is_graded:
            return graded_costs(batch, self.distance, self._graded, narrow=True)
        return super().terms(batch)

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        among, by_ap = soft_among(rows, self.temperature)
        before, back = soft_before(rows, self.temperature)
        rank = 1 + among + before
        # 1 − precision, so that nearly perfect lists keep their digits.
        missed = before / rank
        weights = of_positives(rows)

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            by_before = weights * by / rank
            by_among = -by_before * missed
            near, far = back(by_before + by_among)
            return near + by_ap(by_among), far

        return Sloped(((missed * weights).sum(1),), (lambda: rows.num_positives > 0,), pull)

    def _graded(self, rows: Rows, grades: Tensor) -> tuple[Tensor, Tensor]:
        among, before = soft_among(rows, self.temperature)[0], soft_before(rows, self.temperature)[0]
        # What is less relevant and yet nearer, rather than one minus what is not, as above.
        missed = soft_excess(rows, grades, self.temperature) + grades * before
        total = grades.sum(1)
        lost = rows.only_positives(missed / (1 + among + before)).sum(1)
        return lost / torch.where(total > 0, total, 1), rows.num_positives > 0

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
