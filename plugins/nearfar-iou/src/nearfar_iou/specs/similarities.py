"""Similarities of boxes."""

from __future__ import annotations

from typing import Any

from nearfar.spec import DistanceSpec
from nearfar_iou.specs.shared import DISTANCE_IOU, GENERALIZED_IOU, PROBIOU

__all__ = ["SPECS"]

_HELD = "α is held constant, as in the loss: the gradient is that of v alone."


def _similarity(name: str, cls: str, summary: str, **fields: Any) -> DistanceSpec:
    """A similarity of boxes: named as the loss that is 1 less it."""
    shared: dict[str, Any] = {"family": "iou", "on": "boxes", "similarity": True, "memory": 2, "synchronizations": 0}
    target, definition = f"nearfar_iou.distances.{name}:{cls}Similarity", f"nearfar_iou.definitions.matching:{name}"
    return DistanceSpec(name=name, target=target, summary=summary, definition=definition, **shared | fields)


SPECS = (
    _similarity("iou", "IoU", "Intersection over union of boxes.", range=(0.0, 1.0)),
    _similarity("giou", "GIoU", "Generalized IoU of boxes.", range=(-1.0, 1.0), paper=GENERALIZED_IOU),
    _similarity("diou", "DIoU", "Distance IoU of boxes.", range=(-1.0, 1.0), paper=DISTANCE_IOU),
    _similarity(
        "ciou",
        "CIoU",
        "Complete IoU of boxes.",
        range=(-1.5, 1.0),
        paper=DISTANCE_IOU,
        expected_failures={
            "distance_gradient": _HELD,
            **{f"distance_gradient[box_format={each!r}]": _HELD for each in ("xywh", "cxcywh", "ltrb")},
        },
    ),
    _similarity(
        "probiou",
        "ProbIoU",
        "1 less the Hellinger distance of rotated boxes as normal distributions.",
        on="rotated_boxes",
        range=(0.0, 1.0),
        paper=PROBIOU,
    ),
)
