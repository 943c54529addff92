"""Noise-contrastive cross-entropy with several positives inside the logarithm, and a temperature that may be learned.

van den Oord, Li, Vinyals (2018): Representation Learning with Contrastive Predictive Coding. arXiv:1807.03748.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice, positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.arithmetic import softplus
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.row_losses import SlopedLoss
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped, log_odds

__all__ = ["InfoNCE"]

#: CLIP lets the scale grow to this, "to prevent training instability".
MOST = 100.0


class InfoNCE(SlopedLoss):
    r"""Cross-entropy of an anchor's positives together against all others.

    .. math::
        L_i = -\log \frac{\sum_{p \in P_i} e^{s_{ip} / \tau}}{\sum_{k \in P_i \cup N_i} e^{s_{ik} / \tau}}
        \;\left({} + \log |P_i| \text{ for positives="mean"}\right)

    Parameters
    ----------
    temperature : float
        (units of the similarity, 0..inf] τ; 0.07 as in MoCo, and where CLIP begins to learn it.
    learned : bool
        Whether 1/τ is a parameter, learned as its logarithm and never above 100, as in CLIP.
    positives : {"sum", "mean"}
        ``"sum"``: one near positive is enough (MIL-NCE). ``"mean"``: SupCon's L_in, 0 in a batch of one class only
        where all positives are alike.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        By default the mean over the anchors with a positive.

    Raises
    ------
    ArgumentError
        The temperature is not a finite number above 0, or below 0.01 where it is learned, or ``positives`` is unknown.

    Notes
    -----
    Terms are ``element``, one for each anchor with a positive. With two towers (``ref_emb``, and labels that pair each
    sample with its other view alone) it is one direction of CLIP's loss; the mean of two calls, with the towers
    swapped, is both.
    Where an anchor has one positive, ``info_nce``, ``nt_xent`` and ``sup_con`` are one loss. Pairs from a miner count
    once each, however often they were selected.

    References
    ----------
    van den Oord et al. (2018), arXiv:1807.03748, equation 4; Miech et al. (2020), arXiv:1912.06430, equation 1; Khosla
    et al. (2020), arXiv:2004.11362, equation 3; Radford et al. (2021), arXiv:2103.00020, section 2.5.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learned: bool = False,
        positives: Literal["sum", "mean"] = "sum",
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.temperature = positive("temperature", temperature)
        self.positives = check_choice(self, "positives", positives, ("sum", "mean"))
        self.signed = positives == "mean"
        self.log_scale: nn.Parameter | None = None
        if learned:
            if self.temperature < 1 / MOST:
                raise ArgumentError(f"InfoNCE: a learned temperature begins at {1 / MOST} or above; got {temperature}")
            self.log_scale = nn.Parameter(torch.tensor(-math.log(self.temperature)))

    def default_distance(self) -> Distance:
        return Cosine()

    def learned(self, batch: Batch) -> tuple[Tensor, ...]:
        """1/τ, where it is learned."""
        return () if self.log_scale is None else (self.log_scale.exp().clamp_max(MOST).to(batch.embeddings.dtype),)

    @property
    def loop(self) -> RowLoop | None:
        rule = Rule.ODDS if self.positives == "sum" else Rule.MEAN_ODDS
        return None if self.log_scale is not None else soft_loop(rule, -1 / self.temperature, -1 / self.temperature)

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        d_ap, d_an, has_positive = rows.d_ap_or_far, rows.d_an, rows.num_positives > 0
        by_scale = learned[0] if learned else 1
        near, far = (d_ap * by_scale, d_an * by_scale) if learned else (d_ap, d_an)
        odds, back = log_odds(rows, near, far, -1.0 if learned else -1 / self.temperature)
        costs = softplus(odds)
        if self.positives == "mean":
            costs = costs + rows.num_positives.clamp_min(1).to(costs.dtype).log()

        def pull(by: Any) -> tuple[Tensor, ...]:
            by_near, by_far = back(torch.where(has_positive, torch.sigmoid(odds) * by, 0))
            if not learned:
                return by_near, by_far
            return by_near * by_scale, by_far * by_scale, (by_near * d_ap).sum() + (by_far * d_an).sum()

        return Sloped((torch.where(has_positive, costs, 0),), (lambda: has_positive,), pull)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, learned={self.log_scale is not None}, positives={self.positives!r}"
