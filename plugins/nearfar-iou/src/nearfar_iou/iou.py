"""IoU loss: Yu et al. 2016, "UnitBox: An Advanced Object Detection Network", arXiv:1608.01471."""

from __future__ import annotations

from typing import Literal

from torch import nn

from nearfar.nn.arguments import check_choice
from nearfar_iou.box_loss import Measured, PenalizedIoU
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["IoU"]


#: Where −ln IoU stops growing: −ln 1e-6 = 13.8155.
FLOOR = 1e-6


class IoU(PenalizedIoU):
    r"""IoU loss: how much of two boxes' union is not shared.

    .. math::

        L_{\text{linear}} = 1 - \text{IoU}, \quad L_{\text{log}} = -\ln \max(\text{IoU}, 10^{-6}), \quad
        L_{\text{square}} = 1 - \text{IoU}^2,
        \qquad \text{IoU} = \frac{|P \cap T|}{|P \cup T|}

    Parameters
    ----------
    form : str
        ``"linear"``, ``"log"`` (UnitBox's) or ``"square"``.

    Raises
    ------
    ArgumentError
        ``form`` is unknown.

    Notes
    -----
    Boxes that share nothing: the loss is flat, 1 in the linear and square form and 13.8155 in the logarithmic one,
    and *the gradient is 0*. :class:`~nearfar_iou.giou.GIoU` brings such boxes together. The square form's
    gradient also vanishes as the IoU goes to 0.

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
        box_format: Literal["xyxy", "xywh", "cxcywh", "ltrb"] = "xyxy",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(box_format=box_format, reducer=reducer)
        self.form = check_choice(self, "form", form, ("linear", "log", "square"))

    def penalties(self, pairs: Pairs, *, slopes: bool) -> list[Measured]:
        return []

    def measure(self, pairs: Pairs, *, slopes: bool) -> Measured:
        if self.form == "linear":
            return super().measure(pairs, slopes=slopes)
        if self.form == "square":
            return pairs.miss * (1 + pairs.iou), Slopes(iou=-2 * pairs.iou) if slopes else None
        floored = pairs.iou.clamp_min(FLOOR)
        by_iou = -(pairs.iou > FLOOR).to(floored.dtype) / floored
        return 0 - floored.log(), Slopes(iou=by_iou) if slopes else None

    def formula(self) -> Formula:
        names = {"linear": "iou", "log": "iou_log", "square": "iou_square"}
        return Formula(names[self.form], (FLOOR, 0.0, 0.0))

    def extra_repr(self) -> str:
        return f"form={self.form!r}, {super().extra_repr()}"
