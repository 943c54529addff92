"""Matchers: miners that say which prediction stands for which target."""

from __future__ import annotations

from typing import Any

from nearfar.spec import MinerSpec, Paper, Preset
from nearfar_iou.specs.shared import BOXES

__all__ = ["SPECS"]

_SCORED = (*BOXES, "logits", "targets")


def _matcher(**fields: Any) -> MinerSpec:
    """A matcher of boxes that are not rotated; it waits for a GPU, to know how many pairs there are."""
    shared: dict[str, Any] = {
        "family": "matching",
        "produces": "matches",
        "inputs": BOXES,
        "optional_inputs": ("anchors", "pred_groups", "target_groups"),
        "reference": False,
        "distances": ("iou.iou", "iou.giou", "iou.diou", "iou.ciou"),
        "default_distance": "iou.iou",
        "memory": 2,
    }
    return MinerSpec(**(shared | fields))


SPECS = (
    _matcher(
        name="max_iou",
        target="nearfar_iou.miners.max_iou:MaxIoU",
        summary="Each prediction with the target nearest to it, by two thresholds; those between are ignored.",
        paper=Paper(
            authors="Ren, He, Girshick, Sun",
            title="Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
            year=2015,
            arxiv="1506.01497",
        ),
        deviations=("A target that nothing overlaps has no match.",),
        presets={
            "retinanet": Preset(arguments={"positive": 0.5, "negative": 0.4}, source="Lin et al. 2017"),
            "rpn": Preset(arguments={"positive": 0.7, "negative": 0.3}, source="Ren et al. 2015"),
            "roi": Preset(arguments={"positive": 0.5, "negative": 0.5, "low_quality": None}, source="Ren et al. 2015"),
        },
        distances=("iou.iou", "iou.giou", "iou.diou", "iou.ciou", "iou.probiou"),
        definition="nearfar_iou.definitions.matching:max_iou",
    ),
    _matcher(
        name="atss",
        target="nearfar_iou.miners.atss:ATSS",
        summary="Anchors near the centre of a target, by a threshold from their own mean and deviation.",
        paper=Paper(
            authors="Zhang, Chi, Yao, Lei, Li",
            title="Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample "
            "Selection",
            year=2020,
            arxiv="1912.02424",
        ),
        optional_inputs=("anchors", "pred_groups", "target_groups", "levels"),
        definition="nearfar_iou.definitions.matching:atss",
    ),
    _matcher(
        name="task_aligned",
        target="nearfar_iou.miners.task_aligned:TaskAligned",
        summary="The predictions that are right in both class and place, each weighted by how right.",
        paper=Paper(
            authors="Feng, Zhong, Gao, Scott, Huang",
            title="TOOD: Task-aligned One-stage Object Detection",
            year=2021,
            arxiv="2108.07755",
        ),
        deviations=("Predictions whose centre a target does not hold are left out before the best are taken.",),
        presets={"ultralytics": Preset(arguments={"k": 10, "alpha": 0.5, "beta": 6.0}, source="ultralytics, YOLOv8")},
        inputs=_SCORED,
        definition="nearfar_iou.definitions.matching:task_aligned",
    ),
    _matcher(
        name="simota",
        target="nearfar_iou.miners.simota:SimOTA",
        summary="The cheapest predictions of each target, as many as there are good ones.",
        paper=Paper(
            authors="Ge, Liu, Wang, Li, Sun",
            title="YOLOX: Exceeding YOLO Series in 2021",
            year=2021,
            arxiv="2107.08430",
        ),
        deviations=("Scores are sigmoids of one set of logits, not roots of a product with an objectness.",),
        inputs=_SCORED,
        optional_inputs=("anchors", "pred_groups", "target_groups", "strides"),
        definition="nearfar_iou.definitions.matching:simota",
    ),
    _matcher(
        name="hungarian",
        target="nearfar_iou.miners.hungarian:Hungarian",
        summary="One prediction for each target, so that all pairs cost least altogether.",
        paper=Paper(
            authors="Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko",
            title="End-to-End Object Detection with Transformers",
            year=2020,
            arxiv="2005.12872",
        ),
        presets={
            "deformable_detr": Preset(
                arguments={"class_weight": 2.0, "activation": "sigmoid"},
                source="Zhu et al. 2021, arXiv:2010.04159; their class cost is a focal loss",
            )
        },
        optional_inputs=("logits", "targets", "pred_groups", "target_groups"),
        distances=("iou.iou", "iou.giou", "iou.diou", "iou.ciou", "iou.probiou"),
        default_distance="iou.giou",
        definition="nearfar_iou.definitions.matching:hungarian",
    ),
)
