"""The bases of losses on rotated boxes as normal distributions, and the one pass that computes value and gradient."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice, finite
from nearfar.nn.closed_form import graph_is_kept, refuse_second_derivative
from nearfar_iou.gaussians import Gaussians, GaussianSlopes, check_rotated_boxes
from nearfar_iou.matched import MatchedLoss, wanted
from nearfar_iou.pieces import pieces

__all__ = ["DivergenceLoss", "GaussianLoss", "scaled_by"]

#: Boxes a piece and thread: some tens of numbers are kept of each at once.
PIECE = 8192


class GaussianLoss(MatchedLoss):
    """A loss on predicted rotated boxes and their targets, as normal distributions; a subclass writes :meth:`measure`.

    Called as ``loss(pred_boxes, target_boxes, box_weights=None, box_normalizer=None, box_groups=None)``, boxes
    ``cxcywhr`` (n, 5) each: the centre, the sides, and the angle in radians by which the first side is turned from the
    x axis towards the y axis. Box i is compared with target i, and there is one element term a box. Both get a
    gradient, which can be taken once, not differentiated again.

    The value is that of the distribution, so (w, h, θ), (h, w, θ + π/2) and (w, h, θ + π) are one box, and the angle
    of a square has no gradient. A side that is less than 1e-4 of the longest of both boxes, or of the way from
    centre to centre, is read as so long; what it is short of that and of its target costs more. So do inverted sides;
    see :mod:`nearfar_iou.gaussians`.

    Parameters
    ----------
    reducer : nn.Module, optional
        ``core.mean`` by default, over boxes.

    Raises
    ------
    InputError
        The boxes are not two tensors of the same shape (n, 5).
    """

    @abstractmethod
    def measure(self, pair: Gaussians, *, slopes: bool) -> tuple[Tensor, GaussianSlopes | None]:
        """The losses (n,) of pairs and, where ``slopes`` are asked for, their derivatives by the pairs' measures."""

    def check(self, pred_boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        return check_rotated_boxes(pred_boxes, target_boxes)

    def values(self, pred: Tensor, target: Tensor) -> Tensor:
        values: Tensor = _Pass.apply(pred, target, self, *wanted(pred, target))
        return values


class DivergenceLoss(GaussianLoss):
    """A loss that is a function of the divergence D of two distributions.

    Parameters
    ----------
    transform : str
        f: ``"log1p"`` is ln(1 + D), ``"sqrt"`` is √D, ``"log1p_sqrt"`` is ln(1 + √D). √D has the shape of a cone at a
        perfect prediction: its slope there is singular, and 0 by convention; it is bounded all round.
    tau : float, optional
        [1..inf] The loss is 1 / τ − 1 / (τ + f(D)), which is less than 1 / τ. None: it is f(D).

    Raises
    ------
    ArgumentError
        ``transform`` is unknown, or ``tau`` less than 1.
    """

    def __init__(
        self,
        transform: Literal["log1p", "sqrt", "log1p_sqrt"],
        tau: float | None,
        *,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(reducer=reducer)
        self.transform = check_choice(self, "transform", transform, ("log1p", "sqrt", "log1p_sqrt"))
        if tau is not None and finite("tau", tau) < 1:
            raise ArgumentError(f"tau is 1 or greater, or None for no bound; got {tau!r}")
        self.tau = tau

    @abstractmethod
    def divergence(self, pair: Gaussians, *, slopes: bool) -> tuple[Tensor, GaussianSlopes | None]:
        """D (n,) of pairs, 0 or greater and exactly 0 for equal boxes, and its derivatives where asked for."""

    def measure(self, pair: Gaussians, *, slopes: bool) -> tuple[Tensor, GaussianSlopes | None]:
        divergence, by = self.divergence(pair, slopes=slopes)
        value, slope = self._transformed(divergence)
        if self.tau is not None:
            slope = slope / (self.tau + value).square()
            # 1 / τ − 1 / (τ + f) = 1 / (τ (τ / f + 1)), for an f of 0 and for one that is infinite too.
            value = self.tau / ((self.tau / value + 1) * self.tau**2)
        return value, None if by is None else scaled_by(by, slope)

    def _transformed(self, divergence: Tensor) -> tuple[Tensor, Tensor]:
        """f(D) and its slope, 0 where it has none."""
        if self.transform == "log1p":
            return divergence.log1p(), 1 / (1 + divergence)
        root = divergence.sqrt()
        twice = 2 * root if self.transform == "sqrt" else 2 * root * (1 + root)
        return root if self.transform == "sqrt" else root.log1p(), torch.where(root > 0, 1 / twice, 0)

    def extra_repr(self) -> str:
        return f"transform={self.transform!r}, tau={self.tau}"


def scaled_by(slopes: GaussianSlopes, slope: Tensor) -> GaussianSlopes:
    """Derivatives of a function of what they are derivatives of, whose own slope is (n,)."""
    first, second = slopes.angles
    return GaussianSlopes(
        slopes.offset * slope,
        slopes.pred_sides * slope,
        slopes.target_sides * slope,
        slopes.turn * slope,
        (None if first is None else first * slope, None if second is None else second * slope),
    )


class _Pass(torch.autograd.Function):
    """Losses (n,) of boxes (n, 5), with their gradients."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, target: Tensor, loss: GaussianLoss, for_pred: bool, for_target: bool) -> Tensor:
        values = pred.new_empty(len(pred))
        grads = [pred.new_empty(pred.shape) if asked else None for asked in (for_pred, for_target)]
        for part in pieces(len(pred), pred.device, PIECE):
            pair = Gaussians(pred[part].t().contiguous(), target[part].t().contiguous())
            value, slopes = loss.measure(pair, slopes=for_pred or for_target)
            values[part] = value if pair.cost is None else value + pair.cost
            if slopes is not None:
                for grad, by in zip(grads, pair.gradients(slopes, for_target=for_target), strict=True):
                    if grad is not None and by is not None:
                        grad[part].t().copy_(by)
        ctx.save_for_backward(*grads)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        scale = torch.mul if graph_is_kept() else torch.Tensor.mul_
        by_boxes = [None if saved is None else scale(saved, grad[:, None]) for saved in ctx.saved_tensors]
        return (*by_boxes, None, None, None)
