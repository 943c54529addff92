"""The base classes of losses on matched boxes, and the one pass that computes a loss with its gradient.

A loss says what it is of a pair's measures, and its slopes by them (:meth:`BoxLoss.measure`). The pass goes over
the boxes in pieces that stay in the processor's cache, computes value and gradient together in closed form, and
keeps only the gradient: 4 numbers a box, where autograd would keep every intermediate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.nn import Terms
from nearfar.nn.arguments import check_choice
from nearfar.nn.closed_form import graph_is_kept, refuse_second_derivative
from nearfar_iou.boxes import BOX_FORMATS, check_boxes, frame, to_coordinates
from nearfar_iou.compiled.passes import EXTENTS, CompiledTerms
from nearfar_iou.compiled.tier import Formula, fits
from nearfar_iou.fused import launch
from nearfar_iou.geometry import Pairs, Slopes
from nearfar_iou.matched import MatchedLoss, wanted
from nearfar_iou.pieces import pieces

__all__ = ["BoxLoss", "Measured", "PenalizedIoU"]

#: Boxes a piece and thread. As fast as twice as many, at half the memory.
PIECE = 16384

#: A part of a loss, (n,), and its slopes where they were asked for.
Measured = tuple[Tensor, Slopes | None]


class BoxLoss(MatchedLoss):
    """A loss on the overlap of predicted boxes, (n, 4), and their targets; a subclass writes :meth:`measure`.

    Called as ``loss(pred_boxes, target_boxes, box_weights=None, box_normalizer=None, box_groups=None)``. Box i is
    compared with target i, and there is one element term a box. Both get a gradient, which can be taken once, not
    differentiated again. A perfect prediction costs exactly 0, with a gradient of exactly 0, whatever its size.

    Inverted predicted boxes (``x2 < x1`` by a depth d) are read as having no extent in that axis, and each such side
    costs ``d / (d + target's side)`` more; see :mod:`nearfar_iou.geometry`.

    Parameters
    ----------
    box_format : str
        ``"xyxy"`` (two corners), ``"xywh"`` (lower corner and sides), ``"cxcywh"`` (centre and sides) or ``"ltrb"``
        (how far it reaches to the left, the top, the right and the bottom of a point); of predictions and targets
        alike.
    reducer : nn.Module, optional
        ``core.mean`` by default; torchvision's box losses are unreduced by default, which is ``core.none`` here.

    Raises
    ------
    ArgumentError
        ``box_format`` is unknown.
    """

    def __init__(
        self,
        *,
        box_format: Literal["xyxy", "xywh", "cxcywh", "ltrb"] = "xyxy",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(reducer=reducer)
        self.box_format = check_choice(self, "box_format", box_format, BOX_FORMATS)

    @abstractmethod
    def measure(self, pairs: Pairs, *, slopes: bool) -> Measured:
        """The losses (n,) of pairs and, where ``slopes`` are asked for, their derivatives by the pairs' measures.

        What is held constant on purpose goes through ``detach()``: nothing here has a history, so it changes nothing,
        but it tells a reader, and whoever checks gradients, what the slopes leave out.
        """

    def settle(self) -> None:
        """Called in training once all pairs of a call are measured: what a loss keeps of them is brought up to date."""

    def formula(self) -> Formula | None:
        """How the compiled tier computes what :meth:`measure` says; None where it does not.

        It counts for the class that writes it and no subclass: one that measures otherwise is computed as it says.
        """
        return None

    def own_formula(self) -> Formula | None:
        """:meth:`formula` where it counts."""
        return self.formula() if "formula" in vars(type(self)) else None

    def check(self, pred_boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        return check_boxes(pred_boxes, target_boxes)

    def values(self, pred: Tensor, target: Tensor) -> Tensor:
        values: Tensor = _Pass.apply(pred, target, self, *wanted(pred, target))
        if self.training:
            self.settle()
        return values

    def weighed(self, pred: Tensor, target: Tensor, weights: Tensor | None, **given: Any) -> Terms:
        formula = self.own_formula()
        if formula is None or not (fits(pred, target) if weights is None else fits(pred, target, weights)):
            return super().weighed(pred, target, weights, **given)
        if weights is not None and weights.requires_grad:
            return super().weighed(pred, target, weights, **given)
        return CompiledTerms(formula, self.box_format, pred, target, self.values, weights=weights, **given)

    def extra_repr(self) -> str:
        return f"box_format={self.box_format!r}"


class PenalizedIoU(BoxLoss):
    """1 − IoU and what comes on top of it; a subclass writes :meth:`penalties`."""

    @abstractmethod
    def penalties(self, pairs: Pairs, *, slopes: bool) -> Sequence[Measured]:
        """What is added to 1 − IoU, each 0 or greater, and 0 for equal boxes; as :meth:`BoxLoss.measure` has it."""

    def measure(self, pairs: Pairs, *, slopes: bool) -> Measured:
        value, total = pairs.miss, Slopes(iou=-1.0)
        for penalty, by in self.penalties(pairs, slopes=slopes):
            value = value + penalty
            total = total if by is None else total + by
        return value, total if slopes else None


class _Pass(torch.autograd.Function):
    """Losses (n,) of boxes (n, 4), with their gradients."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, target: Tensor, loss: BoxLoss, for_pred: bool, for_target: bool) -> Tensor:
        n = len(pred)
        grads = [pred.new_empty(n, 4) if wanted else None for wanted in (for_pred, for_target)]
        ctx.save_for_backward(*grads)
        values = pred.new_empty(n)
        # It is as no_grad, but costs less for every operation, of which there are many on few boxes.
        with torch.inference_mode():
            if _is_fused(loss, pred, target, values, grads):
                return values
            if 0 < n <= PIECE:
                return values.copy_(_measured(loss, pred, target, grads))
            for part in pieces(n, pred.device, PIECE):
                rows = [grad if grad is None else grad[part] for grad in grads]
                values[part] = _measured(loss, pred[part], target[part], rows)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        # What nobody will ask for again may be overwritten, which halves the memory; it is not worth it for few boxes.
        in_place = len(grad) > PIECE and not graph_is_kept()
        scale = torch.Tensor.mul_ if in_place else torch.mul
        by_boxes = [None if saved is None else scale(saved, grad[:, None]) for saved in ctx.saved_tensors]
        return (*by_boxes, None, None, None)


def _is_fused(loss: BoxLoss, pred: Tensor, target: Tensor, values: Tensor, grads: list[Tensor | None]) -> bool:
    """Whether one kernel has written the losses of boxes on a GPU, and their gradients."""
    if not pred.is_cuda or (formula := loss.own_formula()) is None or not launch.fits(pred, target):
        return False
    return launch.launch(formula, EXTENTS[loss.box_format], pred, target, values, grads)


def _measured(loss: BoxLoss, pred: Tensor, target: Tensor, grads: list[Tensor | None]) -> Tensor:
    """The losses (n,) of boxes; writes the gradients that there is room for, (n, 4) each."""
    for_pred, for_target = grads
    pairs = Pairs(frame(pred, target, loss.box_format), both=for_target is not None)
    value, slopes = loss.measure(pairs, slopes=for_pred is not None or for_target is not None)
    if slopes is not None:
        for grad, by_extents in zip(grads, pairs.gradients(slopes), strict=False):
            if grad is not None:
                grad.t().copy_(to_coordinates(by_extents, loss.box_format))
    return value if pairs.fold is None else value + pairs.fold
