"""Matching by thresholds of similarity: Ren et al. 2015, "Faster R-CNN", arXiv:1506.01497."""

from __future__ import annotations

import torch
from torch import nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import finite
from nearfar_iou.miners.box_matcher import BACKGROUND, IGNORED, Assigned, BoxMatcher, Image

__all__ = ["MaxIoU"]


class MaxIoU(BoxMatcher):
    r"""Each prediction with the target nearest to it, where that is near enough.

    .. math::

        t(i) = \begin{cases}
            \arg\max_j s_{ij} & \max_j s_{ij} \ge \text{positive} \\
            \text{background} & \max_j s_{ij} < \text{negative}
        \end{cases}

    and what lies between the two is ignored. A target's nearest prediction counts however far it is, if it is nearer
    than ``low_quality``, and so do all that are exactly as near; it stands for its own nearest target, even so.
    Similarities are of ``anchors`` where there are some.

    Parameters
    ----------
    positive : float
        From which similarity on a prediction stands for a target; 0.5 for RetinaNet, 0.7 for proposals.
    negative : float
        Below which similarity it is background; 0.4 for RetinaNet, 0.3 for proposals.
    low_quality : float, optional
        Beyond which similarity the nearest prediction of a target counts in any case. None: it does not.
    distance : nn.Module, optional
        A similarity of boxes; ``iou`` by default.

    Raises
    ------
    ArgumentError
        ``negative`` is greater than ``positive``.

    References
    ----------
    Ren et al. (2015), arXiv:1506.01497, section 3.1.2.

    Deviations: a target that nothing overlaps has no match. torchvision's matcher then takes every prediction for its
    nearest, as all have an IoU of 0.
    """

    def __init__(
        self,
        positive: float = 0.5,
        negative: float = 0.4,
        low_quality: float | None = 0.0,
        *,
        distance: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance)
        self.positive, self.negative = finite("positive", positive), finite("negative", negative)
        if self.negative > self.positive:
            raise ArgumentError(f"MaxIoU: negative = {negative!r} must not be greater than positive = {positive!r}")
        self.low_quality = None if low_quality is None else finite("low_quality", low_quality)

    def assign(self, image: Image) -> Assigned:
        table = self.similarity(image.anchors, image.target)
        nearest, own = table.max(1).values, table.argmax(1)
        found = torch.where(nearest >= self.positive, own, IGNORED)
        found = torch.where(nearest < self.negative, BACKGROUND, found)
        if self.low_quality is not None:
            best = table.amax(0)
            counts = ((table == best) & (best > self.low_quality)).any(1)
            found = torch.where(counts, own, found)
        return Assigned(found)

    def extra_repr(self) -> str:
        return f"positive={self.positive}, negative={self.negative}, low_quality={self.low_quality}"
