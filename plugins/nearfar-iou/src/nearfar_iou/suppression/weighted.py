"""Suppression that merges: Zhou et al. 2017, "CAD: Scale Invariant Framework for Real-Time Object Detection"."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar_iou.suppression.detections import Detections, at_once, by_class, check_threshold, detections
from nearfar_iou.suppression.greedy import by_score, greedy

__all__ = ["weighted_nms"]


@torch.no_grad()
def weighted_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float = 0.5,
    *,
    classes: Tensor | None = None,
    distance: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Of boxes that overlap, keep the one with the greatest score, and move it to their weighted mean.

    .. math:: b_i = \frac{\sum_{m \in M_i} s_m o_{im} b_m}{\sum_{m \in M_i} s_m o_{im}}

    where M_i are box i and those that it suppresses, as :func:`nms` does: the first that suppresses a box has it. s are
    scores and o similarities.

    Parameters
    ----------
    boxes, scores, threshold, classes, distance
        As of :func:`nms`. Scores and ``threshold`` are 0 or greater, and boxes are not rotated: there is no mean of
        angles.

    Returns
    -------
    kept : Tensor
        (k,) int64: the places of the boxes that are kept, by their scores.
    boxes : Tensor
        (k, 4) where they are moved.

    Raises
    ------
    InputError
        As :func:`nms`, or boxes are rotated, or a score is below 0.
    ArgumentError
        ``threshold`` is no finite number, or none that such a similarity has.
    """
    boxes, scores, distance = detections(boxes, scores, distance)
    if boxes.shape[1] != 4:
        raise InputError("boxes that are rotated have no mean: that of angles is none")
    if len(scores) and float(scores.amin()) < 0:
        raise InputError("scores are weights here, so none may be below 0")
    least = check_threshold(threshold, boxes.dtype, distance)
    moved = boxes.clone()
    kept = []
    for places in by_class(classes, boxes):
        found = Detections(boxes[places], scores[places], distance)
        own = greedy(found, least)
        kept.append(places[found.order[own]])
        moved[kept[-1]] = _means(found, own, least)
    chosen = by_score(kept, scores)
    return chosen, moved[chosen]


def _means(found: Detections, kept: Tensor, threshold: float) -> Tensor:
    """(k, 4): the weighted means of those that are kept and what each suppresses."""
    total = found.boxes.new_zeros(len(kept), 5)
    step = at_once(len(kept))
    for part in torch.split(torch.arange(len(found), device=kept.device), step):
        near = found.similarity(kept, part)
        # Which of those that suppress it is the first; a box that is kept has itself.
        suppresses = (near > threshold) & (kept[:, None] < part) | (kept[:, None] == part)
        first = suppresses.int().argmax(0)
        weight = found.scores[part] * near[first, torch.arange(len(part), device=part.device)].clamp_min(0)
        sums = torch.cat((found.boxes[part] * weight[:, None], weight[:, None]), 1)
        total.index_add_(0, first, sums.to(total.dtype))
    weight = total[:, 4:]
    # Of no weight at all, as where all scores are 0, nothing is moved.
    return torch.where(weight > 0, total[:, :4] / torch.where(weight > 0, weight, 1), found.boxes[kept])
