"""Normalised, temperature-scaled cross-entropy.

Sohn (2016): Improved Deep Metric Learning with Multi-class N-pair Loss Objective. NeurIPS.
Chen, Kornblith, Norouzi, Hinton (2020): A Simple Framework for Contrastive Learning of Visual Representations.
arXiv:2002.05709.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import check_choice, positive
from nearfar.nn.distances import Cosine, Distance
from nearfar_pair.arithmetic import log_add_exp, softplus
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.rules import Rule, soft_loop
from nearfar_pair.row_losses import PositiveLoss, SlopedLoss
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Sloped, soft_extreme

__all__ = ["NTXent"]


class NTXent(SlopedLoss, PositiveLoss):
    r"""Cross-entropy of each positive pair against the anchor's other pairs.

    .. math::
        L_{ip} = -\log \frac{e^{s_{ip} / \tau}}{e^{s_{ip} / \tau} + \sum_{k \in O_{ip}} e^{s_{ik} / \tau}}

    Parameters
    ----------
    temperature : float
        (units of the similarity, 0..inf] τ; 0.1 as SimCLR's on ImageNet.
    others : {"negatives", "all"}
        What O holds: the anchor's ``"negatives"``, so that positives do not compete with each other, or ``"all"``
        others of the batch, its other positives among them. With one positive an anchor, as in SimCLR, they are one.
    distance : nn.Module, optional
        What s is; cosine similarity by default. A distance is negated.
    reducer : nn.Module, optional
        By default the mean over the positive pairs.

    Raises
    ------
    ArgumentError
        The temperature is not a finite number above 0, or ``others`` is unknown.

    Notes
    -----
    Terms are ``pos_pair``, one for each ordered positive pair. Where an anchor has several positives, losses of this
    kind differ: here each is a term of its own; ``sup_con`` averages the same terms with ``others="all"`` for each
    anchor first; ``info_nce`` puts the sum of the positives inside the logarithm, so that one near positive is enough.
    Pairs from a miner count once each, however often they were selected.

    References
    ----------
    Chen et al. (2020), arXiv:2002.05709, equation 1; Sohn (2016).
    """

    def __init__(
        self,
        temperature: float = 0.1,
        others: Literal["negatives", "all"] = "negatives",
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.temperature = positive("temperature", temperature)
        self.others = check_choice(self, "others", others, ("negatives", "all"))

    def default_distance(self) -> Distance:
        return Cosine()

    @property
    def loop(self) -> RowLoop | None:
        scale = -1 / self.temperature
        return soft_loop(Rule.EACH_ODDS, scale, scale) if self.others == "negatives" else None

    def sloped(self, rows: Rows, *learned: Tensor) -> Sloped:
        scale = -1 / self.temperature
        n, by_an = soft_extreme(rows.d_an, scale, rows.scratch)
        positives = rows.d_ap * scale
        if self.others == "negatives":
            z = n[:, None] - positives
            costs = softplus(z)  # no difference of nearly equal numbers where it is small
        else:
            p, by_ap = soft_extreme(rows.d_ap_or_far, scale)
            every = log_add_exp(p, n)
            costs = every[:, None] - positives

        def pull(by: Any) -> tuple[Tensor, Tensor]:
            if self.others == "negatives":
                by_z = rows.only_positives(torch.sigmoid(z) * by)
                return by_z * -scale, by_an(by_z.sum(1))
            by_costs = rows.valid.to(n.dtype) * by
            by_every = by_costs.sum(1)
            to_ap = by_ap(by_every * (p - every).exp()).sub_(by_costs, alpha=scale)
            return to_ap, by_an(by_every * (n - every).exp())

        return Sloped((rows.only_positives(costs),), (lambda: rows.valid,), pull)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, others={self.others!r}"
