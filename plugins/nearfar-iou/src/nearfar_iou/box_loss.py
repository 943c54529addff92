"""The base class of losses on matched boxes, and the one pass that computes a loss with its gradient.

A loss says what it is of a pair's measures, and its slopes by them (:meth:`BoxLoss.measure`). The pass goes over
the boxes in pieces that stay in the processor's cache, computes value and gradient together in closed form, and
keeps only the gradient: 4 numbers a box, where autograd would keep every intermediate.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.nn import Loss, Terms, element_terms
from nearfar.nn.arguments import check_choice
from nearfar_iou.closed_form import pieces, refuse_second_derivative
from nearfar_iou.geometry import BOX_FORMATS, Pairs, Slopes, check_boxes, extents, to_coordinates

__all__ = ["BoxLoss"]


class BoxLoss(Loss):
    """A loss on predicted boxes and their targets; a subclass writes :meth:`measure`.

    Parameters
    ----------
    box_format : str
        ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``, of predictions and targets alike.
    reducer : nn.Module, optional
        As in :class:`nearfar.nn.Loss`.
    """

    def __init__(
        self,
        *,
        box_format: Literal["xyxy", "xywh", "cxcywh"] = "xyxy",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(reducer=reducer)
        self.box_format = check_choice(self, "box_format", box_format, BOX_FORMATS)

    @abstractmethod
    def measure(self, pairs: Pairs, *, slopes: bool) -> tuple[Tensor, Slopes | None]:
        """The losses (n,) of pairs and, where ``slopes`` are asked for, their derivatives by the pairs' measures."""

    def terms(self, pred_boxes: Tensor, target_boxes: Tensor) -> Terms:
        pred, target = check_boxes(pred_boxes, target_boxes)
        for_pred, for_target = (torch.is_grad_enabled() and boxes.requires_grad for boxes in (pred, target))
        values: Tensor = _Pass.apply(pred, target, self, for_pred, for_target)
        return element_terms(values)

    def extra_repr(self) -> str:
        return f"box_format={self.box_format!r}"


class _Pass(torch.autograd.Function):
    """Losses (n,) of boxes (n, 4), with their gradients."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, target: Tensor, loss: BoxLoss, for_pred: bool, for_target: bool) -> Tensor:
        n = len(pred)
        values = pred.new_empty(n)
        grads = [pred.new_empty(n, 4) if wanted else None for wanted in (for_pred, for_target)]
        for piece in pieces(n, pred.device):
            boxes = pred.new_empty(2, 4, piece.stop - piece.start)
            extents(pred[piece], loss.box_format, boxes[0])
            extents(target[piece], loss.box_format, boxes[1])
            pairs = Pairs.of(boxes)
            value, slopes = loss.measure(pairs, slopes=for_pred or for_target)
            values[piece] = value if pairs.fold is None else value + pairs.fold
            if slopes is None:
                continue
            for grad, by_extents in zip(grads, pairs.gradients(slopes), strict=True):
                if grad is not None:
                    to_coordinates(by_extents, loss.box_format, grad[piece])
        ctx.save_for_backward(*grads)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        by_boxes = (None if saved is None else saved * grad[:, None] for saved in ctx.saved_tensors)
        return (*by_boxes, None, None, None)
