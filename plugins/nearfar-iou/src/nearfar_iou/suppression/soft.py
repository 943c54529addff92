"""Soft suppression: Bodla et al. 2017, "Soft-NMS", arXiv:1704.04503."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import finite, positive
from nearfar_iou.suppression.detections import Detections, by_class, check_threshold, detections

__all__ = ["check_decay", "soft_nms"]


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    decay: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 0.5,
    threshold: float = 0.3,
    min_score: float = 0.001,
    classes: Tensor | None = None,
    distance: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """Lower the scores of boxes that overlap one with a greater score, rather than suppress them.

    The box with the greatest score is taken, and the scores of all that are left of its class are multiplied with
    ``exp(−s² / sigma)`` or, for ``"linear"`` and a similarity s beyond ``threshold``, with 1 − s; and so on, until no
    score is ``min_score`` or more. A similarity below 0 counts as 0.

    Parameters
    ----------
    boxes, scores, classes, distance
        As of :func:`nms`; scores are 0 or greater.
    decay, sigma, threshold
        How scores are lowered; 0.5 and 0.3 as in the paper.
    min_score
        Below which score a box is dropped; 0.001 as in the authors' code.

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
        ``decay`` is unknown, ``sigma`` not greater than 0, ``threshold`` none that the similarity
        has, or another no finite number.

    References
    ----------
    Bodla et al. (2017), arXiv:1704.04503.
    """
    boxes, scores, distance = detections(boxes, scores, distance)
    check_decay(decay, sigma)
    least, threshold = finite("min_score", min_score), check_threshold(threshold, boxes.dtype, distance)
    kept, lowered = [], []
    for places in by_class(classes, boxes):
        found = Detections(boxes[places], scores[places], distance)
        own = found.scores.clone()
        left = torch.arange(len(found), device=boxes.device)
        while len(left := left[own[left] >= least]):
            best = left[own[left].argmax()]
            kept.append(places[found.order[best]])
            lowered.append(own[best])
            left = left[left != best]
            near = found.similarity(best[None], left)[0].clamp_min_(0)
            if decay == "gaussian":
                own[left] *= torch.exp(-near.square() / sigma)
            else:
                own[left] *= torch.where(near > threshold, (1 - near).clamp_min(0), 1)
    if not kept:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device), scores[:0]
    places, values = torch.stack(kept), torch.stack(lowered)
    order = values.argsort(descending=True, stable=True)
    return places[order], values[order]


def check_decay(decay: str, sigma: float) -> None:
    """Raise :class:`ArgumentError` where ``decay`` is unknown or ``sigma`` is not greater than 0."""
    if decay not in ("gaussian", "linear"):
        raise ArgumentError(f"decay is 'gaussian' or 'linear'; not {decay!r}")
    positive("sigma", sigma)
