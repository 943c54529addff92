"""Greedy suppression: of boxes that overlap, the one with the greatest score."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nearfar_iou.distances.diou import DIoUSimilarity
from nearfar_iou.suppression.detections import Detections, at_once, by_class, check_threshold, detections

__all__ = ["diou_nms", "greedy", "nms"]

#: Boxes that are settled among themselves at once, before those they leave are taken out of all others.
BLOCK = 128


@torch.no_grad()
def nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float = 0.5,
    *,
    classes: Tensor | None = None,
    distance: nn.Module | None = None,
) -> Tensor:
    """Of boxes that overlap, keep the one with the greatest score.

    Boxes are gone through by their scores; each that is not suppressed is kept, and suppresses all others of its class
    whose similarity to it is greater than ``threshold``. On IoU the result is torchvision's. (Where that divides 0 by
    0, for two boxes without area, two that are equal are one here.)

    Parameters
    ----------
    boxes
        (n, 4) ``xyxy``, or as the distance has it.
    scores
        (n,) Of equal ones the first goes first.
    threshold
        Beyond which similarity a box is suppressed.
    classes
        (n,) class ids: boxes suppress those of their own class alone. None: all are of one.
    distance
        A similarity of boxes, such as ``create_distance("giou")``; IoU by default. ``probiou`` for rotated boxes.

    Returns
    -------
    Tensor
        (k,) int64: the places of the boxes that are kept, by their scores.

    Raises
    ------
    InputError
        A shape, dtype or device does not fit, or a score is no number.
    ArgumentError
        ``threshold`` is no finite number, or none that such a similarity has.
    """
    boxes, scores, distance = detections(boxes, scores, distance)
    least = check_threshold(threshold, boxes.dtype, distance)
    kept = []
    for places in by_class(classes, boxes):
        found = Detections(boxes[places], scores[places], distance)
        kept.append(places[found.order[greedy(found, least)]])
    return by_score(kept, scores)


def diou_nms(boxes: Tensor, scores: Tensor, threshold: float = 0.5, *, classes: Tensor | None = None) -> Tensor:
    """Greedy suppression by distance IoU: boxes that overlap but have other centres may be other objects.

    As :func:`nms` with ``distance=create_distance("diou")``: Zheng et al. (2020), arXiv:1911.08287, section 3.3.
    """
    return nms(boxes, scores, threshold, classes=classes, distance=DIoUSimilarity())


def by_score(kept: list[Tensor], scores: Tensor) -> Tensor:
    """The places that are kept of several classes, by their scores; of equal scores the first is first."""
    places = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.int64, device=scores.device)
    if len(kept) < 2:
        return places
    places = places.sort().values
    return places[scores[places].argsort(descending=True, stable=True)]


def greedy(found: Detections, threshold: float) -> Tensor:
    """The places, in the order of scores, of the detections that are kept."""
    left = torch.arange(len(found), device=found.boxes.device)
    kept = []
    while len(left):
        block, left = left[:BLOCK], left[BLOCK:]
        block = block[_settle(found.similarity(block, block) > threshold)]
        kept.append(block)
        left = _outside(found, block, left, threshold)
    return torch.cat(kept) if kept else left


def _outside(found: Detections, kept: Tensor, others: Tensor, threshold: float) -> Tensor:
    """Those of the others that nothing kept suppresses."""
    step = at_once(len(kept))
    parts = []
    for part in torch.split(others, step):
        parts.append(part[(found.similarity(kept, part) > threshold).any(0).logical_not_()])
    return torch.cat(parts) if parts else others


def _settle(suppresses: Tensor) -> Tensor:
    """The places that are kept of a few boxes in order, of a table of which would suppress which."""
    rows = np.packbits(suppresses.cpu().numpy(), axis=1, bitorder="little")
    # A row as one whole number, whose bits are all looked at at once.
    masks = [int.from_bytes(row.tobytes(), "little") for row in rows]
    suppressed, kept = 0, []
    for place, mask in enumerate(masks):
        if not suppressed >> place & 1:
            kept.append(place)
            suppressed |= mask
    return torch.tensor(kept, dtype=torch.int64, device=suppresses.device)
