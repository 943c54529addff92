"""CIoU loss: Zheng et al. 2020, "Distance-IoU Loss" and "Enhancing Geometric Factors", arXiv:1911.08287, 2005.03572."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from nearfar.nn.arguments import check_choice, within
from nearfar_iou.box_loss import Measured
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.diou import DIoU
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["CIoU"]


class CIoU(DIoU):
    r"""CIoU loss: DIoU loss that also costs a difference in aspect ratio.

    .. math::

        L = 1 - \text{IoU} + \frac{\rho^2}{c^2} + \alpha v, \qquad
        v = \frac{4}{\pi^2} \left( \arctan \frac{W}{H} - \arctan \frac{w}{h} \right)^2
          = \frac{4}{\pi^2} \arctan^2 \frac{W h - w H}{H h + W w}, \qquad
        \alpha = \frac{v}{1 - \text{IoU} + v}

    where w, h are the sides of the prediction and W, H those of the target, ρ is the distance of the centres and c the
    diagonal of the hull. α is held constant: the gradient is that of the loss with α a number.

    Parameters
    ----------
    aspect_grad : str
        ``"exact"``: the gradient of v. ``"unit"``: multiplied with w² + h², so that the factor 1 / (w² + h²) in it is
        1, as the paper has it for boxes in 0..1, against steps that grow as boxes get small; it depends on the unit
        of the boxes.
    alpha_gate : float, optional
        [0..1] α is 0 where the IoU is below it. None: nowhere, as in the first paper; 0.5 in the second.

    Raises
    ------
    ArgumentError
        ``aspect_grad`` is unknown or ``alpha_gate`` out of its range.

    Notes
    -----
    The second form of v, of one arctangent, divides by no side: boxes without width or height have a finite loss and
    gradient. A box that is a point has no aspect ratio, and v is 0.

    References
    ----------
    Zheng et al. (2020), arXiv:1911.08287; Zheng et al. (2021), arXiv:2005.03572, which has the gate. The authors' code
    and torchvision have the exact gradient; theirs and mmdet's have the gate, torchvision has none.
    """

    def __init__(
        self,
        aspect_grad: Literal["exact", "unit"] = "exact",
        alpha_gate: float | None = None,
        *,
        box_format: Literal["xyxy", "xywh", "cxcywh", "ltrb"] = "xyxy",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(box_format=box_format, reducer=reducer)
        self.aspect_grad = check_choice(self, "aspect_grad", aspect_grad, ("exact", "unit"))
        self.alpha_gate = None if alpha_gate is None else within("alpha_gate", alpha_gate, 0, 1)

    def penalties(self, pairs: Pairs, *, slopes: bool) -> list[Measured]:
        tiny = torch.finfo(pairs.iou.dtype).tiny
        # In diagonals of the hull, so that aspects are true.
        sides = pairs.sides * pairs.slant[:, None]
        pred, target = sides.unbind(1)
        turned = pred.flip(0)
        # w² + h², by which the slopes of an arctangent of w / h are divided, and W w + H h.
        squares, dot = (sides * pred[:, None]).sum(0).clamp_min_(tiny).unbind(0)
        wide, tall = (target * turned).unbind(0)
        angle = (wide - tall).div_(dot).atan_().mul_(2 / math.pi)
        v = angle.square()
        alpha = v / (pairs.miss + v).clamp_min_(tiny)
        if self.alpha_gate is not None:
            alpha *= pairs.iou >= self.alpha_gate
        alpha = alpha.detach()
        by, steep = None, None
        if self.aspect_grad == "unit":
            steep = (squares * pairs.diagonal.square()).detach()
            v = v.detach() + steep * (v - v.detach())  # the value is that of v, its slope so many times as steep
        if slopes:
            by_angle = (alpha * angle).mul_(4 / math.pi)
            if steep is not None:
                by_angle *= steep
            by_target = None
            if pairs.both:
                by_target = target.flip(0).mul_(pairs.slant).mul_(by_angle / target.square().sum(0).clamp_min_(tiny))
                by_target[1].neg_()  # the target's angle grows with its width and falls with its height
            by_pred = turned.mul_(pairs.slant).mul_(by_angle.div_(squares))
            by_pred[0].neg_()
            by = Slopes(sides=(by_pred, by_target))
        return [*super().penalties(pairs, slopes=slopes), (alpha * v, by)]

    def formula(self) -> Formula:
        gate = -1.0 if self.alpha_gate is None else self.alpha_gate
        return Formula("ciou", (gate, float(self.aspect_grad == "unit"), 0.0))

    def extra_repr(self) -> str:
        return f"aspect_grad={self.aspect_grad!r}, alpha_gate={self.alpha_gate}, {super().extra_repr()}"
