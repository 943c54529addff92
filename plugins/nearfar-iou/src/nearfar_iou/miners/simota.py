"""SimOTA: Ge et al. 2021, "YOLOX", arXiv:2107.08430."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import non_negative
from nearfar_iou.logits import check_logits
from nearfar_iou.miners.box_matcher import BACKGROUND, Assigned, CornerMatcher, Image
from nearfar_iou.miners.class_logits import class_logits

__all__ = ["SimOTA"]

#: What a prediction costs whose centre does not lie both within a target and near its centre: more than all else.
OUTSIDE = 1e5


class SimOTA(CornerMatcher):
    r"""SimOTA: each target takes the cheapest predictions, as many as there are good ones.

    .. math::

        c_{ij} = \text{BCE}(p_i, y_j) - \lambda \ln s_{ij} + 10^5 \, [\text{centre of } i \text{ not in } G_j \cap Z_j],
        \qquad k_j = \max(1, \lfloor \sum_{\text{top } q} s_{ij} \rfloor)

    where p are the sigmoids of all ``logits`` of a prediction, y is 1 for the class of the target, s the similarity
    and Z the square round the target's centre that reaches ``radius`` strides. Predictions whose anchor's centre lies
    within some target, or some square, are looked at; one that several targets take stands for the one where it is
    cheapest. Without ``strides``, (n,), squares are left out.

    Parameters
    ----------
    top : int
        [1..inf] q: of how many predictions similarities are added up; 10 as in the authors' code.
    weight : float
        [0..inf] λ, the weight of the box; 3 as in the authors' code.
    radius : float
        [0..inf] How far a square reaches, in strides; 2.5 as in the authors' code.
    distance : nn.Module, optional
        A similarity of boxes; ``iou`` by default. What is below 0 counts as 0, and in the logarithm as 1e-8.

    Raises
    ------
    ArgumentError
        ``top``, ``weight`` or ``radius`` is out of its range, or ``distance`` one of rotated boxes.

    References
    ----------
    Ge et al. (2021), arXiv:2107.08430.

    Deviations: scores are the sigmoids of one set of logits, not roots of a product with an objectness.
    """

    inputs: ClassVar[tuple[str, ...]] = ("pred_boxes", "target_boxes", "logits", "targets")
    optional_inputs: ClassVar[tuple[str, ...]] = (*CornerMatcher.optional_inputs, "strides")

    def __init__(
        self, top: int = 10, weight: float = 3.0, radius: float = 2.5, *, distance: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance)
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise ArgumentError(f"SimOTA: top must be a whole number of at least 1; got {top!r}")
        self.top, self.weight, self.radius = top, non_negative("weight", weight), non_negative("radius", radius)

    def assign(self, image: Image) -> Assigned:
        inside, both = self._places(image)
        looked_at = inside.any(1).nonzero()[:, 0]
        found = torch.full((len(inside),), BACKGROUND, dtype=torch.int64, device=inside.device)
        if not len(looked_at):
            return Assigned(found)
        table = self.similarity(image.pred[looked_at], image.target).clamp_min(0)
        cost = self._cost(image, looked_at, table, both[looked_at])
        wanted = table.topk(min(self.top, len(table)), 0).values.sum(0).floor().clamp_min(1)
        order = cost.argsort(dim=0, stable=True)
        place = torch.empty_like(order).scatter_(0, order, _counted(order))
        taken = place < wanted
        cheapest, own = cost.masked_fill(~taken, torch.inf).min(1)
        found[looked_at] = torch.where(cheapest < torch.inf, own, BACKGROUND)
        return Assigned(found)

    def _places(self, image: Image) -> tuple[Tensor, Tensor]:
        """(n, m) each: whether centres lie within a target or its square, and whether within both."""
        centres = self.centres(image.anchors)
        inside = self.is_inside(centres, image.target)
        if image.strides is None:
            return inside, inside
        apart = (centres[:, None] - self.centres(image.target)).abs().amax(2)
        central = apart < self.radius * image.strides.to(apart)[:, None]
        return inside | central, inside & central

    def _cost(self, image: Image, looked_at: Tensor, table: Tensor, both: Tensor) -> Tensor:
        assert image.logits is not None
        logits = check_logits(image.logits[looked_at]).to(table.dtype)
        own = class_logits(logits, image.classes)
        all_wrong = nn.functional.softplus(logits).view(len(logits), -1).sum(1)
        # Of all classes wrong but one, that one costs −ln p instead of −ln (1 − p): less by its logit.
        return all_wrong[:, None] - own - self.weight * table.clamp_min(1e-8).log() + OUTSIDE * ~both

    def extra_repr(self) -> str:
        return f"top={self.top}, weight={self.weight}, radius={self.radius}"


def _counted(order: Tensor) -> Tensor:
    """0, 1, 2 … down each column."""
    return torch.arange(len(order), device=order.device)[:, None].expand_as(order)
