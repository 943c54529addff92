"""What several parts of the plugin have in common."""

from __future__ import annotations

from typing import Any

from nearfar.spec import LossSpec, Paper

__all__ = ["BOXES", "DISTANCE_IOU", "EFFICIENT_IOU", "EVERYWHERE", "GENERALIZED_IOU", "INVERTED", "PROBIOU", "box_loss"]

BOXES = ("pred_boxes", "target_boxes")
INVERTED = (
    "An inverted predicted side is read as one of length 0 and costs depth / (depth + target's side) more: "
    "a formula of areas alone gives it no gradient, or rewards it."
)
EVERYWHERE = ("translation", "scale", "flip")

DISTANCE_IOU = Paper(
    authors="Zheng, Wang, Liu, Li, Ye, Ren",
    title="Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression",
    year=2020,
    arxiv="1911.08287",
)
EFFICIENT_IOU = Paper(
    authors="Zhang, Ren, Zhang, Jia, Wang, Tan",
    title="Focal and Efficient IOU Loss for Accurate Bounding Box Regression",
    year=2021,
    arxiv="2101.08158",
)
GENERALIZED_IOU = Paper(
    authors="Rezatofighi, Tsoi, Gwak, Sadeghian, Reid, Savarese",
    title="Generalized Intersection over Union: A Metric and A Loss for Bounding Box Regression",
    year=2019,
    arxiv="1902.09630",
)
PROBIOU = Paper(
    authors="Llerena, Zeni, Kristen, Jung",
    title="Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection",
    year=2021,
    arxiv="2106.06072",
)


def box_loss(**fields: Any) -> LossSpec:
    """A loss on matched boxes, with what holds for all of them."""
    shared: dict[str, Any] = {
        "family": "iou",
        "inputs": BOXES,
        "optional_inputs": ("box_weights", "box_normalizer", "box_groups"),
        "accepts": ("matches",),
        "optimum": 0.0,
        "memory": 1,
        "synchronizations": 0,
    }
    return LossSpec(**(shared | fields))
