"""Varifocal loss: Zhang et al. 2021, "VarifocalNet: An IoU-aware Dense Object Detector", arXiv:2008.13367."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar_iou.dense_loss import DenseLoss, Measured, Odds, Wanted, power

__all__ = ["Varifocal"]


class Varifocal(DenseLoss):
    r"""Varifocal loss: cross-entropy with a quality from 0 to 1 that weighs positives, and easy negatives taken down.

    .. math::

        L = \begin{cases}
            -q \left( q \ln p + (1 - q) \ln (1 - p) \right) & q > 0 \\
            -\alpha\, p^\gamma \ln (1 - p) & q = 0 \end{cases}, \qquad p = \sigma(z)

    summed over the classes of an element.

    Parameters
    ----------
    alpha : float
        [0..inf] Weight of negatives; 0.75 as in the paper.
    gamma : float
        [0..inf] How fast the weight of a negative falls as it gets easy; 2 as in the paper.
    normalizer : str, optional
        What ``core.mean`` divides the sum over elements by. None: the number of elements. ``"positives"``: the
        number of targets above 0, 1 at least, as in the paper; of this batch, not of all ranks.

    Raises
    ------
    ArgumentError
        ``alpha`` or ``gamma`` is negative or not finite.

    Notes
    -----
    A target q is the quality, the IoU of the box most often, in the column of an element's class, and 0 in all others:
    ``targets = torch.zeros_like(logits); targets[positive, classes] = ious``. The least of a positive is at p = q, and
    is q times the entropy of q there: 0 where q is 1.

    References
    ----------
    Zhang et al. (2021), arXiv:2008.13367. Deviations: none.
    """

    on_quality = True

    def __init__(
        self,
        alpha: float = 0.75,
        gamma: float = 2.0,
        normalizer: Literal["positives"] | None = None,
        *,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(normalizer, reducer=reducer)
        self.alpha = non_negative("alpha", alpha)
        self.gamma = non_negative("gamma", gamma)

    def measure(self, logits: Tensor, targets: Tensor, wants: Wanted) -> Measured:
        odds = Odds.of(logits)
        cost_1, cost_0 = odds.costs()
        positive = targets.sign()
        entropy = cost_0.lerp(cost_1, targets)
        ease = power(odds.p, logits, odds.tail, self.gamma).mul_(1 - positive).mul_(self.alpha)
        of_0 = ease * cost_0
        value = (targets * entropy).add_(of_0)
        by_logits = by_targets = None
        if wants.by_targets:
            by_targets = (logits * targets).neg_().add_(entropy).mul_(positive)
        if wants.by_logits:
            off = odds.p.lerp(-odds.q, targets)  # p − q, exact at both ends
            by_logits = ease.mul_(odds.p).addcmul_(odds.q, of_0, value=self.gamma).addcmul_(targets, off)
        return Measured(value, by_logits, by_targets)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, {super().extra_repr()}"
