"""Smooth L1 loss: Girshick 2015, "Fast R-CNN", arXiv:1504.08083."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.nn import Loss, Terms, element_terms
from nearfar.nn.arguments import check_choice, non_negative
from nearfar_iou.boxes import check_boxes

__all__ = ["SmoothL1"]


class SmoothL1(Loss):
    r"""Smooth L1 loss of box coordinates: quadratic near the target, linear away from it.

    .. math::

        L = \sum_{i=1}^{4}
            \begin{cases} d_i^2 / (2 \beta) & d_i < \beta \\ d_i - \beta / 2 & \text{otherwise} \end{cases},
        \qquad d_i = |p_i - t_i|

    Parameters
    ----------
    beta : float
        [coordinates, 0..inf] Where the quadratic part ends; 0 is the L1 loss. 1 as in the paper, which compares
        encoded offsets of variance 1.
    coordinates : str
        What becomes of a box's four values: ``"sum"`` as in the paper, or ``"mean"``.
    reducer : nn.Module, optional
        ``core.mean`` by default, over boxes.

    Raises
    ------
    ArgumentError
        ``beta`` is negative or not finite, or ``coordinates`` is unknown.
    InputError
        The boxes are not two tensors of the same shape (n, 4).

    Notes
    -----
    Called as ``loss(pred_boxes, target_boxes)``, both (n, 4). One element term a box. Coordinates are compared as
    they are given: any box format, or the offsets a detector regresses, as long as both are alike; the value
    depends on which. Where a prediction is exact the gradient is 0, with beta = 0 too.

    ``torch.nn.SmoothL1Loss`` takes the mean over boxes and coordinates: that is ``coordinates="mean"``.

    References
    ----------
    Girshick (2015), arXiv:1504.08083; beta is torch's generalisation. Deviations: none.
    """

    def __init__(
        self, beta: float = 1.0, coordinates: Literal["sum", "mean"] = "sum", *, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(reducer=reducer)
        self.beta = non_negative("beta", beta)
        self.coordinates = check_choice(self, "coordinates", coordinates, ("sum", "mean"))

    def terms(self, pred_boxes: Tensor, target_boxes: Tensor) -> Terms:
        pred, target = check_boxes(pred_boxes, target_boxes)
        each = F.smooth_l1_loss(pred, target, beta=self.beta, reduction="none")
        return element_terms(each.sum(1) if self.coordinates == "sum" else each.mean(1))

    def extra_repr(self) -> str:
        return f"beta={self.beta}, coordinates={self.coordinates!r}"
