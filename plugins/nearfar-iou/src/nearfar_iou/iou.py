"""IoU loss: Yu et al. 2016, "UnitBox: An Advanced Object Detection Network", arXiv:1608.01471."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import check_choice
from nearfar_iou.box_loss import BoxLoss
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["IoU"]


#: Where −ln IoU stops growing: −ln 1e-6 = 13.8155.
FLOOR = 1e-6


class IoU(BoxLoss):
    r"""IoU loss: how much of two boxes' union is not shared.

    .. math::

        L_{\text{linear}} = 1 - \text{IoU}, \quad L_{\text{log}} = -\ln \max(\text{IoU}, 10^{-6}), \quad
        L_{\text{square}} = 1 - \text{IoU}^2,
        \qquad \text{IoU} = \frac{|P \cap T|}{|P \cup T|}

    Parameters
    ----------
    form : str
        ``"linear"``, ``"log"`` (UnitBox's) or ``"square"``.
    box_format : str
        ``"xyxy"`` (two corners), ``"xywh"`` (lower corner and sides) or ``"cxcywh"`` (centre and sides); of
        predictions and targets alike.
    reducer : nn.Module, optional
        ``core.mean`` by default; torchvision's box losses are unreduced by default, which is ``core.none`` here.

    Raises
    ------
    ArgumentError
        ``form`` or ``box_format`` is unknown.
    InputError
        The boxes are not two tensors of the same shape (n, 4).

    Notes
    -----
    Called as ``loss(pred_boxes, target_boxes)``, both (n, 4), in any unit; box i is compared with target i. One
    element term a box. Both get a gradient; it can be taken once, not differentiated again. A perfect prediction
    costs exactly 0, with a gradient of exactly 0, whatever its size.

    Boxes that share nothing: the loss is flat, 1 in the linear and square form and 13.8155 in the logarithmic one,
    and *the gradient is 0*. :class:`~nearfar_iou.giou.GIoU` brings such boxes together. The square form's
    gradient also vanishes as the IoU goes to 0.

    Inverted predicted boxes (``x2 < x1`` by a depth d) are read as having no extent in that axis, and each such side
    costs ``d / (d + target's side)`` more; see :mod:`nearfar_iou.geometry`.

    References
    ----------
    Yu et al. (2016), arXiv:1608.01471. The square form is PaddleDetection's.

    Deviations: the paper's −ln IoU is infinite for boxes that share nothing; here it stops at an IoU of 1e-6, with
    a gradient of 0 below it.
    """

    def __init__(
        self,
        form: Literal["linear", "log", "square"] = "linear",
        *,
        box_format: Literal["xyxy", "xywh", "cxcywh"] = "xyxy",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(box_format=box_format, reducer=reducer)
        self.form = check_choice(self, "form", form, ("linear", "log", "square"))

    def measure(self, pairs: Pairs, *, slopes: bool) -> tuple[Tensor, Slopes | None]:
        iou, union = pairs.iou_and_union()
        if self.form == "linear":
            value, by_iou = 1 - iou, torch.full_like(iou, -1)
        elif self.form == "square":
            value, by_iou = 1 - iou.square(), -2 * iou
        else:
            floored = iou.clamp_min(FLOOR)
            value, by_iou = 0 - floored.log(), -(iou > FLOOR).to(iou.dtype) / floored
        if not slopes:
            return value, None
        # IoU = I / U and U = A + B − I.
        by_overlap = by_iou / union
        by_box = -by_overlap * iou
        return value, Slopes(torch.stack((by_overlap - by_box, by_box, by_box)))

    def extra_repr(self) -> str:
        return f"form={self.form!r}, {super().extra_repr()}"
