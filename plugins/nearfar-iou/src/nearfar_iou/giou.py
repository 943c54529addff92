"""GIoU loss: Rezatofighi et al. 2019, "Generalized Intersection over Union", arXiv:1902.09630."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar_iou.box_loss import BoxLoss
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["GIoU"]


class GIoU(BoxLoss):
    r"""GIoU loss: IoU loss that also costs the part of the hull which neither box fills.

    .. math::

        L = 1 - \text{IoU} + \frac{|C| - |P \cup T|}{|C|} \in [0, 2)

    where C, the hull, is the smallest box round both.

    Parameters
    ----------
    box_format : str
        ``"xyxy"`` (two corners), ``"xywh"`` (lower corner and sides) or ``"cxcywh"`` (centre and sides); of
        predictions and targets alike.
    reducer : nn.Module, optional
        ``core.mean`` by default; torchvision's box losses are unreduced by default, which is ``core.none`` here.

    Raises
    ------
    ArgumentError
        ``box_format`` is unknown.
    InputError
        The boxes are not two tensors of the same shape (n, 4).

    Notes
    -----
    Called as ``loss(pred_boxes, target_boxes)``, both (n, 4), in any unit; box i is compared with target i. One
    element term a box. Both get a gradient; it can be taken once, not differentiated again. A perfect prediction
    costs exactly 0, with a gradient of exactly 0, whatever its size; boxes apart cost more the further they are.

    Inverted predicted boxes (``x2 < x1`` by a depth d) are read as having no extent in that axis, and each such side
    costs ``d / (d + target's side)`` more, so only they can cost 2 or more; see :mod:`nearfar_iou.geometry`.

    References
    ----------
    Rezatofighi et al. (2019), arXiv:1902.09630.

    Deviations: none for proper boxes. The paper sorts the coordinates of an inverted box, which makes it as good as
    the box turned round.
    """

    def __init__(
        self, *, box_format: Literal["xyxy", "xywh", "cxcywh"] = "xyxy", reducer: nn.Module | None = None
    ) -> None:
        super().__init__(box_format=box_format, reducer=reducer)

    def measure(self, pairs: Pairs, *, slopes: bool) -> tuple[Tensor, Slopes | None]:
        iou, union = pairs.iou_and_union()
        # In hulls |C| = 1. Rounding can take a union that fills its hull beyond it, hence the clamp.
        value = (2 - iou).sub_(union).clamp_min_(0)
        if not slopes:
            return value, None
        # L = 2 − I/U − U/C and U = A + B − I.
        areas = union.new_empty(3, len(union))
        by_union = torch.div(iou, union, out=areas[1]).sub_(1)
        torch.reciprocal(union, out=areas[0]).add_(by_union).neg_()
        areas[2].copy_(by_union)
        return value, Slopes(areas, hull=union)
