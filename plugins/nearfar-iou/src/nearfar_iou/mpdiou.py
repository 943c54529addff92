"""MPDIoU loss: Ma and Xu 2023, "MPDIoU: A Loss for Efficient and Accurate Regression …", arXiv:2307.07662."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import positive
from nearfar_iou.box_loss import Measured, PenalizedIoU
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["MPDIoU"]


class MPDIoU(PenalizedIoU):
    r"""MPDIoU loss: IoU loss that also costs the distances of two opposite corners, in diagonals of the image.

    .. math::

        L = 1 - \text{IoU} + \frac{d_1^2 + d_2^2}{w^2 + h^2}

    where :math:`d_1` is the distance of the upper left corners, :math:`d_2` that of the lower right ones, and w, h are
    the sides of the image.

    Parameters
    ----------
    image_size : float or tuple of float
        (units of the boxes, 0..inf) Height and width of the image, or the side of a square one; 1 for boxes in 0..1.

    Raises
    ------
    ArgumentError
        ``image_size`` is neither one nor two numbers greater than 0.

    Notes
    -----
    The corners count in the unit of the boxes, so that a small box off by as much as a large one costs the same for
    it. The loss is less than 3 for boxes in the image.

    References
    ----------
    Ma and Xu (2023), arXiv:2307.07662. Deviations: none for proper boxes.
    """

    def __init__(
        self,
        image_size: float | tuple[float, float],
        *,
        box_format: Literal["xyxy", "xywh", "cxcywh", "ltrb"] = "xyxy",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(box_format=box_format, reducer=reducer)
        sides = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
        if len(sides) != 2:
            raise ArgumentError(f"image_size must be one number or two, height and width; got {image_size!r}")
        self.image_size = (positive("image_size", sides[0]), positive("image_size", sides[1]))

    def penalties(self, pairs: Pairs, *, slopes: bool) -> list[Measured]:
        height, width = self.image_size
        apart = pairs.difference
        scaled = apart / (height**2 + width**2)
        by = None
        if slopes:
            steep = 2 * scaled
            by = Slopes(extents=(-steep, steep if pairs.both else None))
        return [((apart * scaled).sum(0), by)]

    def formula(self) -> Formula:
        height, width = self.image_size
        return Formula("mpdiou", (height**2 + width**2, 0.0, 0.0))

    def extra_repr(self) -> str:
        return f"image_size={self.image_size}, {super().extra_repr()}"
