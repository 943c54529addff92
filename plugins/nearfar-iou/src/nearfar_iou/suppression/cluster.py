"""Suppression of all boxes at once: Zheng et al. 2021, "Enhancing Geometric Factors", arXiv:2005.03572."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar_iou.suppression.detections import Detections, at_once, by_class, check_threshold, detections
from nearfar_iou.suppression.greedy import by_score

__all__ = ["cluster_nms", "overlapping"]


@torch.no_grad()
def cluster_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float = 0.5,
    *,
    classes: Tensor | None = None,
    distance: nn.Module | None = None,
) -> Tensor:
    """Greedy suppression for all boxes at once: as often as boxes suppress each other in a row, most often thrice.

    It keeps what :func:`nms` keeps, for a table of all pairs, n² bytes: for a GPU, where going from box to box costs
    more. Zheng et al. (2021), arXiv:2005.03572. Parameters, returns and raises as of :func:`nms`.
    """
    boxes, scores, distance = detections(boxes, scores, distance)
    least = check_threshold(threshold, boxes.dtype, distance)
    kept = []
    for places in by_class(classes, boxes):
        found = Detections(boxes[places], scores[places], distance)
        kept.append(places[found.order[_settle(overlapping(found, least))]])
    return by_score(kept, scores)


def overlapping(found: Detections, threshold: float) -> Tensor:
    """(n, n) boolean: which box would suppress which of those that come after it."""
    n = len(found)
    table = torch.zeros(n, n, dtype=torch.bool, device=found.boxes.device)
    step = at_once(n)
    for top in range(0, n, step):
        rows = slice(top, min(top + step, n))
        table[rows, top:] = found.similarity(rows, slice(top, n)) > threshold
    return table.triu_(1)


def _settle(suppresses: Tensor) -> Tensor:
    kept = torch.ones(len(suppresses), dtype=torch.bool, device=suppresses.device)
    # What is kept is settled one box further each time at least.
    for _ in range(len(suppresses)):
        again = suppresses[kept].any(0).logical_not_()
        if torch.equal(again, kept):
            break
        kept = again
    return kept.nonzero()[:, 0]
