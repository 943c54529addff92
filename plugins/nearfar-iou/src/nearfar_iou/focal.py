"""Focal loss: Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv:1708.02002."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn import Loss, Terms, element_terms
from nearfar_iou.closed_form import pieces, refuse_second_derivative

__all__ = ["Focal"]


class Focal(Loss):
    r"""Sigmoid focal loss: binary cross-entropy with the weight of easy examples taken down.

    .. math::

        L = -y\, \alpha\, (1 - p)^\gamma \ln p - (1 - y)\, (1 - \alpha)\, p^\gamma \ln (1 - p), \qquad p = \sigma(z)

    summed over the classes of an element.

    Parameters
    ----------
    alpha : float, optional
        [0..1] Weight of positives; negatives weigh 1 − alpha. None: both weigh 1. 0.25 as in the paper.
    gamma : float
        [0..inf] How fast the weight of an example falls as it gets easy; 0 is cross-entropy. 2 as in the paper.
    normalizer : str, optional
        What ``core.mean`` divides the sum over elements by. None: the number of elements. ``"positives"``: the
        number of positive targets, 1 at least, as in the paper; of this batch, not of all ranks.
    reducer : nn.Module, optional
        ``core.mean`` by default; torchvision's is unreduced by default, which is ``core.none`` here but for the sum
        over classes.

    Raises
    ------
    ArgumentError
        ``alpha``, ``gamma`` or ``normalizer`` is out of its range.
    InputError
        Logits and targets are not two tensors of the same shape (n,) or (n, classes), or (looked at on the CPU
        alone, where it stalls nothing) a target is outside of 0..1.

    Notes
    -----
    Called as ``loss(logits, targets)``: (n,) or (n, classes), classes independent of each other. Targets are 0 or
    1, of any dtype; class ids are to be made one-hot first. A target between 0 and 1 is the probability of 1: its
    loss is the expectation, linear in the target. One element term an element, the *sum* over its classes, so
    torchvision's ``reduction="mean"``, which is over elements and classes, is smaller by their number.

    Every factor is an exponential of a log-probability, so value and gradient stay finite for any finite logit and
    any gamma, where a power of 1 − p has none at p = 1 for gamma < 1. The gradient can be taken once, not
    differentiated again.

    References
    ----------
    Lin et al. (2017), arXiv:1708.02002.

    Deviations: soft targets, which the paper does not have. torchvision puts them inside the power instead.
    """

    def __init__(
        self,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        normalizer: str | None = None,
        *,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(reducer=reducer)
        if alpha is not None and not 0 <= alpha <= 1:
            raise ArgumentError(f"alpha is between 0 and 1, or None for no weights; not {alpha!r}")
        if not 0 <= gamma < math.inf:
            raise ArgumentError(f"gamma is a finite number, 0 or greater; not {gamma!r}")
        if normalizer not in (None, "positives"):
            raise ArgumentError(f"normalizer is None or 'positives'; not {normalizer!r}")
        self.alpha = alpha
        self.gamma = gamma
        self.normalizer = normalizer

    def terms(self, logits: Tensor, targets: Tensor) -> Terms:
        logits, targets = _check(logits, targets)
        for_logits, for_targets = (torch.is_grad_enabled() and x.requires_grad for x in (logits, targets))
        alpha_1, alpha_0 = (1.0, 1.0) if self.alpha is None else (self.alpha, 1.0 - self.alpha)
        values: Tensor = _Pass.apply(logits, targets, alpha_1, alpha_0, self.gamma, for_logits, for_targets)
        normalizer = targets.detach().sum().clamp_min(1) if self.normalizer == "positives" else None
        return element_terms(values if values.ndim == 1 else values.sum(1), normalizer=normalizer)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, normalizer={self.normalizer!r}"


class _Pass(torch.autograd.Function):
    """Focal losses of logits and targets of one shape, with their gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        alpha_1: float,
        alpha_0: float,
        gamma: float,
        for_logits: bool,
        for_targets: bool,
    ) -> Tensor:
        shape, z, y = logits.shape, logits.reshape(-1), targets.reshape(-1)
        values = torch.empty_like(z)
        by_logits, by_targets = (torch.empty_like(z) if wanted else None for wanted in (for_logits, for_targets))
        for piece in pieces(len(z), z.device):
            # −ln p and −ln(1 − p), each to full relative precision however close to 0.
            tail = z[piece].abs().neg_().exp_().log1p_()
            cost_1 = z[piece].clamp_max(0).neg_().add_(tail)
            cost_0 = z[piece].clamp_min(0).add_(tail)
            # (1 − p)^γ = exp(−γ · −ln(1 − p)), with alpha.
            ease_1 = cost_0.mul(-gamma).exp_().mul_(alpha_1)
            ease_0 = cost_1.mul(-gamma).exp_().mul_(alpha_0)
            of_1, of_0 = ease_1 * cost_1, ease_0 * cost_0
            torch.lerp(of_0, of_1, y[piece], out=values[piece])  # exact at both ends
            if by_targets is not None:
                torch.sub(of_1, of_0, out=by_targets[piece])
            if by_logits is not None:
                p, q = cost_1.neg_().exp_(), cost_0.neg_().exp_()
                slope_1 = ease_1.mul_(q).addcmul_(p, of_1, value=gamma).neg_()
                slope_0 = ease_0.mul_(p).addcmul_(q, of_0, value=gamma)
                torch.lerp(slope_0, slope_1, y[piece], out=by_logits[piece])
        ctx.save_for_backward(*(None if slope is None else slope.view(shape) for slope in (by_logits, by_targets)))
        return values.view(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        return (*(None if slope is None else slope * grad for slope in ctx.saved_tensors), *[None] * 5)


def _check(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(logits, Tensor) or not isinstance(targets, Tensor):
        raise InputError("logits and targets must be tensors of the same shape, (n,) or (n, classes)")
    if not logits.is_floating_point():
        raise InputError(f"logits must be floating; got {logits.dtype}")
    if logits.ndim not in (1, 2):
        raise InputError(f"logits must be of shape (n,) or (n, classes); got {tuple(logits.shape)}")
    if logits.shape != targets.shape:
        hint = "; class ids are to be made one-hot" if logits.ndim == 2 and targets.ndim == 1 else ""
        raise InputError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape{hint}")
    if logits.device != targets.device:
        raise InputError(f"logits are on {logits.device}, targets on {targets.device}")
    dtype = torch.float64 if torch.float64 in (logits.dtype, targets.dtype) else torch.float32
    logits, targets = logits.to(dtype), targets.to(dtype)
    if targets.device.type == "cpu" and targets.numel():
        low, high = (float(bound) for bound in targets.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise InputError(f"targets must be 0, 1 or a probability between; got values from {low:g} to {high:g}")
    return logits, targets
