"""Losses on coordinates, each for itself."""

from __future__ import annotations

from typing import Any

from nearfar.spec import Paper, Preset
from nearfar_iou.specs.shared import box_loss

__all__ = ["SPECS"]

_MOVED: dict[str, Any] = {"family": "coordinates", "invariances": ("translation", "flip"), "separates": True}

SPECS = (
    box_loss(
        name="l1",
        target="nearfar_iou.l1:L1",
        definition="nearfar_iou.definitions.coordinates:l1",
        summary="How far each of a box's four coordinates is off.",
        paper=Paper(
            authors="Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko",
            title="End-to-End Object Detection with Transformers",
            year=2020,
            arxiv="2005.12872",
        ),
        presets={
            "detr": Preset(
                arguments={"coord": "sum"}, source="Carion et al. 2020: summed, over the number of boxes; weight 5"
            ),
            "torch": Preset(arguments={"coord": "mean"}, source="torch.nn.L1Loss"),
        },
        **_MOVED,
    ),
    box_loss(
        name="l2",
        target="nearfar_iou.l2:L2",
        definition="nearfar_iou.definitions.coordinates:l2",
        summary="The square of how far each of a box's four coordinates is off.",
        paper=Paper(
            authors="Redmon, Divvala, Girshick, Farhadi",
            title="You Only Look Once: Unified, Real-Time Object Detection",
            year=2016,
            arxiv="1506.02640",
        ),
        deviations=("It takes coordinates as they are given; YOLO takes the roots of sides.",),
        presets={"torch": Preset(arguments={"coord": "mean"}, source="torch.nn.MSELoss")},
        **_MOVED,
    ),
    box_loss(
        name="smooth_l1",
        target="nearfar_iou.smooth_l1:SmoothL1",
        schedulable=("beta",),
        definition="nearfar_iou.definitions.coordinates:smooth_l1",
        summary="Quadratic near the target and linear away from it, over a box's four coordinates.",
        paper=Paper(authors="Girshick", title="Fast R-CNN", year=2015, arxiv="1504.08083"),
        presets={
            "l1": Preset(arguments={"beta": 0.0}, source="the limit of beta to 0"),
            "torch": Preset(arguments={"coord": "mean"}, source="torch.nn.SmoothL1Loss"),
            "torchvision": Preset(arguments={"beta": 1 / 9}, source="torchvision's region proposals and heads"),
        },
        **_MOVED,
    ),
    box_loss(
        name="balanced_l1",
        target="nearfar_iou.balanced_l1:BalancedL1",
        schedulable=("alpha", "gamma", "beta"),
        definition="nearfar_iou.definitions.coordinates:balanced_l1",
        summary="Smooth L1 whose slope rises early, so that accurate boxes count for more.",
        paper=Paper(
            authors="Pang, Chen, Shi, Feng, Ouyang, Lin",
            title="Libra R-CNN: Towards Balanced Learning for Object Detection",
            year=2019,
            arxiv="1904.02701",
        ),
        deviations=("beta, which the paper does not have, scales both of the places where mmdet's scales one.",),
        presets={
            "libra_rcnn": Preset(
                arguments={"alpha": 0.5, "gamma": 1.5, "beta": 1.0}, source="Pang et al. 2019; mmdet's Libra R-CNN"
            )
        },
        **_MOVED,
    ),
)
