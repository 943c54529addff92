"""Soft suppression of all boxes at once: Wang et al. 2020, "SOLOv2", arXiv:2003.10152."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import finite
from nearfar_iou.suppression.detections import Detections, at_once, by_class, detections
from nearfar_iou.suppression.soft import check_decay

__all__ = ["matrix_nms"]


@torch.no_grad()
def matrix_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    decay: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 0.5,
    min_score: float = 0.0,
    classes: Tensor | None = None,
    distance: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Lower the scores of boxes that overlap one with a greater score, all of them at once.

    .. math:: s_j \leftarrow s_j \min_{i < j} \frac{f(o_{ij})}{f(\max_{k < i} o_{ki})}

    where boxes are in the order of their scores, o is the similarity and f is 1 − o, or exp(−o² / sigma): by how much
    box i lowers box j, less what box i was itself lowered by. A similarity is read as 0 … 1, and as 1 − 1e-6 at most
    where f is linear, which is 0 at 1.

    Parameters
    ----------
    boxes, scores, classes, distance
        As of :func:`nms`; scores are 0 or greater.
    decay, sigma
        f; the authors' code has 2, for exp(−2 o²): 0.5 here.
    min_score
        Below which score a box is dropped.

    Returns
    -------
    kept : Tensor
        (k,) int64: the places of the boxes that are left, by their new scores.
    scores : Tensor
        (k,) their new scores.

    Raises
    ------
    InputError
        As :func:`nms`.
    ArgumentError
        ``decay`` is unknown, ``sigma`` not greater than 0, or ``min_score`` no finite number.

    References
    ----------
    Wang et al. (2020), arXiv:2003.10152, section 3.3.
    """
    boxes, scores, distance = detections(boxes, scores, distance)
    check_decay(decay, sigma)
    least = finite("min_score", min_score)
    lowered = torch.empty_like(scores)
    for places in by_class(classes, boxes):
        found = Detections(boxes[places], scores[places], distance)
        lowered[places[found.order]] = found.scores * _decayed(found, decay, sigma)
    kept = lowered.argsort(descending=True, stable=True)
    kept = kept[lowered[kept] >= least]
    return kept, lowered[kept]


def _decayed(found: Detections, decay: str, sigma: float) -> Tensor:
    """(n,) by how much each score is lowered: of the boxes before it, the one that lowers it the most."""
    n = len(found)
    most = found.scores.new_zeros(n)
    lowest = torch.ones_like(most)
    step = at_once(n)
    # Each part of the columns asks of the boxes before it, whose own greatest overlap is known by then.
    for left in range(0, n, step):
        columns = slice(left, min(left + step, n))
        near = found.similarity(slice(0, columns.stop), columns).to(most.dtype).clamp_(0, 1)
        near = near.triu_(1 - left)
        most[columns] = near.amax(0)
        own = most[: columns.stop, None]
        if decay == "gaussian":
            ratio = torch.exp((own.square() - near.square()) / sigma)
        else:
            ratio = (1 - near.clamp_max(1 - 1e-6)) / (1 - own.clamp_max(1 - 1e-6))
        before = torch.ones_like(ratio, dtype=torch.bool).triu_(1 - left)
        lowest[columns] = torch.where(before, ratio, 1).amin(0)
    return lowest
