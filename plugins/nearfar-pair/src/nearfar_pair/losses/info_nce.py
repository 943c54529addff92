"""Noise-contrastive cross-entropy with several positives inside the logarithm, and a temperature that may be learned.

van den Oord, Li, Vinyals (2018): Representation Learning with Contrastive Predictive Coding. arXiv:1807.03748.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice, positive
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.arithmetic import log_sum_exp, softplus
from nearfar_pair.row_losses import AnchorLoss
from nearfar_pair.sides import Rows

__all__ = ["InfoNCE"]

#: CLIP lets the scale grow to this, "to prevent training instability".
MOST = 100.0


class InfoNCE(AnchorLoss):
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
        return () if self.log_scale is None else (self.log_scale,)

    def costs(self, rows: Rows, *learned: Tensor) -> tuple[Tensor, Tensor]:
        has_positive = rows.num_positives > 0
        d_ap, d_an, scale = rows.d_ap_or_far, rows.d_an, -1 / self.temperature
        if learned:
            by = learned[0].exp().clamp_max(MOST).to(d_an.dtype)
            d_ap, d_an, scale = d_ap * by, d_an * by, -1.0
        costs = softplus(log_sum_exp(d_an, scale) - log_sum_exp(d_ap, scale))
        if self.positives == "mean":
            costs = costs + rows.num_positives.clamp_min(1).to(costs.dtype).log()
        return torch.where(has_positive, costs, 0), has_positive

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, learned={self.log_scale is not None}, positives={self.positives!r}"
