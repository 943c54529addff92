"""Losses round one of those on overlap."""

from __future__ import annotations

from nearfar.spec import Paper
from nearfar_iou.specs.shared import EFFICIENT_IOU, EVERYWHERE, box_loss

__all__ = ["SPECS"]

SPECS = (
    box_loss(
        name="alpha_iou",
        target="nearfar_iou.alpha_iou:AlphaIoU",
        schedulable=("power",),
        definition="nearfar_iou.definitions.boxes:alpha_iou",
        summary="Another box loss with its IoU and each of its penalties raised to a power.",
        family="wrapper",
        paper=Paper(
            authors="He, Erfani, Ma, Bailey, Chi, Hua",
            title="Alpha-IoU: A Family of Power Intersection over Union Losses for Bounding Box Regression",
            year=2021,
            arxiv="2110.13675",
        ),
        deviations=("Powers below 1 are refused: their slope at a perfect prediction is infinite.",),
        wraps=("iou.iou", "iou.[gdces]iou", "iou.mpdiou"),
        example="loss=diou",
        invariances=EVERYWHERE,
        separates=True,
    ),
    box_loss(
        name="focal_iou",
        target="nearfar_iou.focal_iou:FocalIoU",
        schedulable=("gamma",),
        definition="nearfar_iou.definitions.boxes:focal_iou",
        summary="Another box loss, each box weighted by a power of its IoU: focal_iou(eiou) is Focal-EIoU.",
        family="wrapper",
        paper=EFFICIENT_IOU,
        deviations=("The weight is held constant; with a gradient it would push apart boxes that overlap little.",),
        wraps=("*iou",),
        example="loss=eiou",
        invariances=EVERYWHERE,
        detached="The weight by IoU is held constant: boxes that share nothing cost nothing and must not attract.",
    ),
    box_loss(
        name="inner_iou",
        target="nearfar_iou.inner_iou:InnerIoU",
        schedulable=("ratio",),
        definition="nearfar_iou.definitions.boxes:inner_iou",
        summary="Another box loss with the IoU of smaller, or larger, boxes within it.",
        family="wrapper",
        paper=Paper(
            authors="Zhang, Xu, Zhang",
            title="Inner-IoU: More Effective Intersection over Union Loss with Auxiliary Bounding Box",
            year=2023,
            arxiv="2311.02877",
        ),
        wraps=("iou.iou", "iou.[gdces]iou", "iou.mpdiou"),
        example="loss=diou",
        invariances=EVERYWHERE,
        separates=True,
    ),
)
