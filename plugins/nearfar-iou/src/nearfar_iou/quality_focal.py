"""Quality focal loss: Li et al. 2020, "Generalized Focal Loss", arXiv:2006.04388."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar_iou.dense_loss import DenseLoss, Measured, Odds, Wanted

__all__ = ["QualityFocal"]


class QualityFocal(DenseLoss):
    r"""Quality focal loss: cross-entropy with a quality from 0 to 1, weighted by how far the score is off it.

    .. math::

        L = -|y - p|^\beta \left( y \ln p + (1 - y) \ln (1 - p) \right), \qquad p = \sigma(z)

    summed over the classes of an element.

    Parameters
    ----------
    beta : float
        [0..inf] How fast the weight of a score falls as it gets near its target; 0 is cross-entropy. 2 as in the
        paper.
    normalizer : str, optional
        What ``core.mean`` divides the sum over elements by. None: the number of elements. ``"positives"``: the
        number of targets above 0, 1 at least, as in the paper; of this batch, not of all ranks.

    Raises
    ------
    ArgumentError
        ``beta`` is negative or not finite.

    Notes
    -----
    A target is the quality, the IoU of the box most often, in the column of an element's class, and 0 in all others:
    ``targets = torch.zeros_like(logits); targets[positive, classes] = ious``. It is 0 where p = y, exactly so where y
    is 0 or 1. A beta between 0 and 1 has a slope there that is as steep as one likes, and 0 at p = y itself.

    References
    ----------
    Li et al. (2020), arXiv:2006.04388. mmdet takes class ids and qualities apart. Deviations: none.
    """

    on_quality = True

    def __init__(
        self,
        beta: float = 2.0,
        normalizer: Literal["positives"] | None = None,
        *,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(normalizer, reducer=reducer)
        self.beta = non_negative("beta", beta)

    def measure(self, logits: Tensor, targets: Tensor, wants: Wanted) -> Measured:
        odds = Odds.of(logits)
        cost_1, cost_0 = odds.costs()
        entropy = cost_0.lerp_(cost_1, targets)
        off = odds.p.lerp(-odds.q, targets)  # p − y, exact at both ends
        if self.beta == 2:
            scale, steep = off.square(), off
        else:
            scale = off.abs().pow_(self.beta)
            steep = torch.where(off == 0, 0, scale / off)  # |p − y|^β / (p − y)
        value = scale * entropy
        by_logits = by_targets = None
        if wants.by_targets:
            by_targets = (scale * logits).add_(entropy * steep, alpha=self.beta).neg_()
        if wants.by_logits:
            by_logits = (scale * off).add_((odds.p * odds.q).mul_(entropy).mul_(steep), alpha=self.beta)
        return Measured(value, by_logits, by_targets)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, {super().extra_repr()}"
