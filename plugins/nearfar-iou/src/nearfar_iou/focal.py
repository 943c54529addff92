"""Focal loss: Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv:1708.02002."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.arguments import check_choice, non_negative, within
from nearfar.nn.closed_form import refuse_second_derivative
from nearfar.nn.matching import Matches
from nearfar_iou.dense_loss import DenseLoss, Measured, Odds, Wanted, power, tail
from nearfar_iou.logits import check_class_ids, check_dense, check_ids
from nearfar_iou.score_loss import matched_ids

__all__ = ["Focal"]


class Focal(DenseLoss):
    r"""Focal loss: cross-entropy with the weight of easy examples taken down.

    .. math::

        L = -y\, \alpha\, (1 - p)^\gamma \ln p - (1 - y)\, (1 - \alpha)\, p^\gamma \ln (1 - p), \qquad p = \sigma(z)

    summed over the classes of an element; or, of a softmax,

    .. math::

        L = -\sum_c y_c\, \alpha_c\, (1 - p_c)^\gamma \ln p_c, \qquad p = \text{softmax}(z)

    where α_c is 1 − α for the background and α for any other class.

    Parameters
    ----------
    alpha : float, optional
        [0..1] Weight of positives; negatives weigh 1 − alpha. None: both weigh 1. 0.25 as in the paper.
    gamma : float
        [0..inf] How fast the weight of an example falls as it gets easy; 0 is cross-entropy. 2 as in the paper.
    normalizer : str, optional
        What ``core.mean`` divides the sum over elements by. None: the number of elements. ``"positives"``: the
        number of positive targets (the sum, of soft ones), 1 at least, as in the paper; of this batch, not of all
        ranks.
    activation : str
        ``"sigmoid"``, classes independent of each other, as in the paper; or ``"softmax"``, one class an element.
    background : int
        [0..inf] The class of a softmax whose elements are negatives; 0 as in Detectron, the last one in mmdet.
    reducer : nn.Module, optional
        ``core.mean`` by default; torchvision's is unreduced by default, which is ``core.none`` here but for the sum
        over classes.

    Raises
    ------
    ArgumentError
        ``alpha``, ``gamma``, ``normalizer``, ``activation`` or ``background`` is out of its range.
    InputError
        Logits and targets are not two tensors of the same shape (n,) or (n, classes), or (looked at on the CPU
        alone, where it stalls nothing) a target is outside of 0..1, or a class id of 0..classes − 1.

    Notes
    -----
    Targets are 0 or 1, of any dtype; a target between 0 and 1 is the probability of 1: its loss is the expectation,
    linear in the target. Of a softmax they are class ids (n,), or a probability for each class (n, classes).

    Every factor is an exponential of a log-probability, so value and gradient stay finite for any finite logit and
    any gamma, where a power of 1 − p has none at p = 1 for gamma < 1.

    References
    ----------
    Lin et al. (2017), arXiv:1708.02002; the softmax as in the authors' Detectron.

    Deviations: soft targets, which the paper does not have. torchvision puts them inside the power instead.
    """

    def __init__(
        self,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        normalizer: Literal["positives"] | None = None,
        activation: Literal["sigmoid", "softmax"] = "sigmoid",
        background: int = 0,
        *,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(normalizer, reducer=reducer)
        self.alpha = None if alpha is None else within("alpha", alpha, 0, 1)
        self.gamma = non_negative("gamma", gamma)
        self.activation = check_choice(self, "activation", activation, ("sigmoid", "softmax"))
        if isinstance(background, bool) or not isinstance(background, int) or background < 0:
            raise ArgumentError(f"background is a class id, 0 or greater; not {background!r}")
        self.background = background

    def values(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().values(logits, targets) if self.activation == "sigmoid" else self._of_softmax(logits, targets)

    def positives(self, targets: Tensor) -> Tensor:
        return targets.sum()

    def is_positive(self, targets: Tensor) -> Tensor | None:
        if self.activation == "sigmoid":
            return super().is_positive(targets)
        return targets != self.background if targets.ndim == 1 else targets.argmax(1) != self.background

    def matched_targets(self, matches: Matches, logits: Tensor, classes: Tensor | None) -> Tensor:
        if self.activation == "sigmoid":
            return super().matched_targets(matches, logits, classes)
        return matched_ids(matches, logits, classes, self.background)

    # ---- sigmoid

    def measure(self, logits: Tensor, targets: Tensor, wants: Wanted) -> Measured:
        if wants.is_hard and not wants.by_targets:
            return self._hard(logits, targets, wants.by_logits)
        odds = Odds.of(logits)
        (cost_1, cost_0), (ease_1, ease_0) = odds.costs(), odds.ease(self.gamma)
        if self.alpha is not None:
            ease_1, ease_0 = ease_1.mul_(self.alpha), ease_0.mul_(1 - self.alpha)
        of_1, of_0 = ease_1 * cost_1, ease_0 * cost_0
        value = torch.lerp(of_0, of_1, targets)  # exact at both ends
        slope = None
        if wants.by_logits:
            slope_1 = ease_1.mul_(odds.q).addcmul_(odds.p, of_1, value=self.gamma).neg_()
            slope_0 = ease_0.mul_(odds.p).addcmul_(odds.q, of_0, value=self.gamma)
            slope = slope_0.lerp_(slope_1, targets)
        return Measured(value, slope, of_1.sub_(of_0) if wants.by_targets else None)

    def _hard(self, logits: Tensor, targets: Tensor, slopes: bool) -> Measured:
        """Of targets that are 0 or 1: one of the two sides is enough."""
        side = torch.rsub(targets, 1, alpha=2)  # 1 for a target of 0, −1 for one of 1
        wrong = logits * side  # the logit of what the target is not, of probability q
        q = wrong.sigmoid()
        p = torch.rsub(q, 1)
        rest = tail(p, q)
        cost = wrong.clamp_min(0).sub_(rest)  # −ln p
        ease = power(q, wrong, rest, self.gamma)
        if self.alpha is not None:
            ease *= targets.mul(2 * self.alpha - 1).add_(1 - self.alpha)
        value = ease * cost
        if not slopes:
            return Measured(value, None)
        slope = p.mul_(cost).mul_(self.gamma).add_(q)
        return Measured(value, slope.mul_(ease).mul_(side))

    # ---- softmax

    def _of_softmax(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        by_id = isinstance(targets, Tensor) and targets.ndim == 1
        logits, targets = check_class_ids(logits, targets) if by_id else check_dense(logits, targets)[:2]
        if logits.ndim != 2 or logits.shape[1] <= self.background:
            raise InputError(
                f"logits of a softmax must be of shape (n, classes), with background = {self.background} among the "
                f"classes; got {tuple(logits.shape)}"
            )
        log_p = F.log_softmax(logits, 1)
        if by_id:
            check_ids(targets, logits.shape[1])
            log_p = log_p.gather(1, targets[:, None])[:, 0]
            in_background = targets == self.background
        else:
            in_background = torch.arange(logits.shape[1], device=logits.device) == self.background
        each: Tensor = _Eased.apply(log_p, self.gamma)
        if self.alpha is not None:
            each = each * torch.where(in_background, 1 - self.alpha, self.alpha)
        values = each if by_id else (each * targets).sum(1)
        if self.normalizer is None:
            return values, None
        positives = ~in_background if by_id else targets.detach() * ~in_background
        return values, positives.sum().clamp_min(1)

    def extra_repr(self) -> str:
        return (
            f"alpha={self.alpha}, gamma={self.gamma}, {super().extra_repr()}, activation={self.activation!r}, "
            f"background={self.background}"
        )


class _Eased(torch.autograd.Function):
    """−(1 − p)^γ ln p, of ln p."""

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, gamma: float) -> Tensor:
        q = torch.expm1(log_p).neg_()
        ease = q.pow(gamma)
        # By ln p it is −(1 − p)^γ + γ (1 − p)^γ p ln p / (1 − p), whose last factor goes to −1 as p goes to 1.
        ratio = torch.where(q > 0, log_p / q, -1)
        ctx.save_for_backward(torch.rsub(q, 1).mul_(ratio).mul_(gamma).sub_(1).mul_(ease))
        return ease.mul_(log_p).neg_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (slope,) = ctx.saved_tensors
        return slope * grad, None
