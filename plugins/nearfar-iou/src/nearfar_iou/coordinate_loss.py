"""The base of losses that compare coordinates, each for itself, and the one pass that computes value and gradient."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import check_choice
from nearfar.nn.closed_form import graph_is_kept, refuse_second_derivative
from nearfar_iou.boxes import check_boxes
from nearfar_iou.matched import MatchedLoss, wanted
from nearfar_iou.pieces import pieces

__all__ = ["CoordinateLoss"]

#: Boxes a piece and thread: four numbers each, of which few more are kept at once.
PIECE = 16384


class CoordinateLoss(MatchedLoss):
    """A loss of each coordinate's difference, added up over a box's four; a subclass writes :meth:`measure`.

    Called as ``loss(pred_boxes, target_boxes, box_weights=None, box_normalizer=None, box_groups=None)``, boxes (n, 4)
    each. Coordinates are compared as they are given: in any box format, or as the offsets that a detector regresses, as
    long as both are alike; the value depends on which. There is one element term a box. Both get a gradient, which can
    be taken once, not differentiated again. An exact coordinate costs exactly 0, with a gradient of exactly 0.

    Parameters
    ----------
    coord : str
        What becomes of a box's four values: their ``"sum"`` or their ``"mean"``.
    reducer : nn.Module, optional
        ``core.mean`` by default, over boxes. torch's mean is one over boxes and coordinates: ``coord="mean"``.

    Raises
    ------
    ArgumentError
        ``coord`` is unknown.
    InputError
        The boxes are not two tensors of the same shape (n, 4).
    """

    def __init__(self, coord: Literal["sum", "mean"] = "sum", *, reducer: nn.Module | None = None) -> None:
        super().__init__(reducer=reducer)
        self.coord = check_choice(self, "coord", coord, ("sum", "mean"))

    @abstractmethod
    def measure(self, difference: Tensor, *, slopes: bool) -> tuple[Tensor, Tensor | None]:
        """The losses (n, 4) of differences p − t and, where ``slopes`` are asked for, their derivatives by them."""

    def check(self, pred_boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        return check_boxes(pred_boxes, target_boxes)

    def values(self, pred: Tensor, target: Tensor) -> Tensor:
        values: Tensor = _Pass.apply(pred, target, self, *wanted(pred, target))
        return values

    def extra_repr(self) -> str:
        return f"coord={self.coord!r}"


class _Pass(torch.autograd.Function):
    """Losses (n,) of boxes (n, 4), with their derivatives by the differences."""

    @staticmethod
    def forward(
        ctx: Any, pred: Tensor, target: Tensor, loss: CoordinateLoss, for_pred: bool, for_target: bool
    ) -> Tensor:
        share = 1.0 if loss.coord == "sum" else 0.25
        values = pred.new_empty(len(pred))
        kept = pred.new_empty(pred.shape) if for_pred or for_target else None
        for part in pieces(len(pred), pred.device, PIECE):
            each, by = loss.measure(pred[part] - target[part], slopes=kept is not None)
            x1, y1, x2, y2 = each.unbind(1)
            # Adding columns is three times as fast as a sum along so short an axis.
            torch.add(x1 + y1, x2 + y2, out=values[part])
            if kept is not None and by is not None:
                torch.mul(by, share, out=kept[part])
        ctx.save_for_backward(kept)
        ctx.wanted = for_pred, for_target
        return values if share == 1 else values.mul_(share)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (kept,) = ctx.saved_tensors
        for_pred, for_target = ctx.wanted
        by_pred = kept * grad[:, None] if graph_is_kept() else kept.mul_(grad[:, None])
        return by_pred if for_pred else None, -by_pred if for_target else None, None, None, None
