"""Task-aligned assignment: Feng et al. 2021, "TOOD", arXiv:2108.07755."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import non_negative
from nearfar_iou.miners.box_matcher import BACKGROUND, Assigned, CornerMatcher, Image
from nearfar_iou.miners.class_logits import class_logits

__all__ = ["TaskAligned"]


class TaskAligned(CornerMatcher):
    r"""Task-aligned assignment: the predictions that are right in both, their class and their place.

    .. math:: t_{ij} = p_{i c_j}^\alpha s_{ij}^\beta

    where p are scores, sigmoids of ``logits``, of the class of target j, and s similarities of predictions. A target
    takes the ``k`` predictions of greatest t among those whose anchor's centre it holds; a prediction that several take
    stands for the nearest. Each counts by its t, scaled so that the greatest of a target becomes the greatest s there:
    the target of a score, and the weight of a box.

    Parameters
    ----------
    k : int
        [1..inf] How many predictions a target takes; 13 as in the paper.
    alpha : float
        [0..inf] The power of the score; 1 as in the paper.
    beta : float
        [0..inf] The power of the similarity; 6 as in the paper.
    distance : nn.Module, optional
        A similarity of boxes; ``iou`` by default. What is below 0 counts as 0.

    Raises
    ------
    ArgumentError
        ``k``, ``alpha`` or ``beta`` is out of its range, or ``distance`` one of rotated boxes.

    References
    ----------
    Feng et al. (2021), arXiv:2108.07755, section 3.2.

    Deviations: predictions whose centre a target does not hold are left out before the k are taken, as ultralytics
    does, rather than after.
    """

    inputs: ClassVar[tuple[str, ...]] = ("pred_boxes", "target_boxes", "logits", "targets")

    def __init__(
        self, k: int = 13, alpha: float = 1.0, beta: float = 6.0, *, distance: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ArgumentError(f"TaskAligned: k must be a whole number of at least 1; got {k!r}")
        self.k, self.alpha, self.beta = k, non_negative("alpha", alpha), non_negative("beta", beta)

    def assign(self, image: Image) -> Assigned:
        table = self.similarity(image.pred, image.target).clamp_min(0)
        assert image.logits is not None
        scores = class_logits(image.logits, image.classes).sigmoid().to(table.dtype)
        inside = self.is_inside(self.centres(image.anchors), image.target)
        aligned = scores.pow(self.alpha) * table.pow(self.beta) * inside
        order = aligned.argsort(dim=0, descending=True, stable=True)[: self.k]
        taken = torch.zeros_like(inside).scatter_(0, order, True) & (aligned > 0)
        nearest, own = table.masked_fill(~taken, -torch.inf).max(1)
        found = torch.where(nearest > -torch.inf, own, BACKGROUND)
        stands = taken & (found[:, None] == torch.arange(table.shape[1], device=found.device))
        aligned, table = aligned * stands, table * stands
        greatest = aligned.amax(0)
        scaled = aligned * (table.amax(0) / torch.where(greatest > 0, greatest, 1))
        return Assigned(found, scaled.sum(1))

    def extra_repr(self) -> str:
        return f"k={self.k}, alpha={self.alpha}, beta={self.beta}"
