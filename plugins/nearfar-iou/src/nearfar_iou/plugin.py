"""Entry module of the plugin ``iou``: losses of detection, on boxes and on their scores."""

from __future__ import annotations

from nearfar import LossSpec, Paper, Preset, hookimpl

BOXES = ("pred_boxes", "target_boxes")
DISJOINT = "−ln IoU stops at an IoU of 1e-6, with a gradient of 0 below: it has no finite value at 0."
INVERTED = (
    "An inverted predicted side is read as one of length 0 and costs depth / (depth + target's side) more: "
    "a formula of areas alone gives it no gradient, or rewards it."
)


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [
        LossSpec(
            name="iou",
            target="nearfar_iou.iou:IoU",
            summary="1 − IoU, −ln IoU or 1 − IoU² of matched boxes; flat for boxes that share nothing.",
            family="iou",
            paper=Paper(
                authors="Yu, Jiang, Wang, Cao, Huang",
                title="UnitBox: An Advanced Object Detection Network",
                year=2016,
                arxiv="1608.01471",
            ),
            deviations=(
                "−ln IoU stops at an IoU of 1e-6, with a gradient of 0 below: it has no finite value at 0.",
                INVERTED,
            ),
            presets={"unitbox": Preset(arguments={"form": "log"}, source="Yu et al. 2016")},
            inputs=BOXES,
            optimum=0.0,
            invariances=("translation", "scale", "flip"),
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="giou",
            target="nearfar_iou.giou:GIoU",
            summary="1 − IoU plus the part of the hull of both boxes that neither fills.",
            family="iou",
            paper=Paper(
                authors="Rezatofighi, Tsoi, Gwak, Sadeghian, Reid, Savarese",
                title="Generalized Intersection over Union: A Metric and A Loss for Bounding Box Regression",
                year=2019,
                arxiv="1902.09630",
            ),
            deviations=(INVERTED,),
            inputs=BOXES,
            optimum=0.0,
            invariances=("translation", "scale", "flip"),
            separates=True,
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="smooth_l1",
            target="nearfar_iou.smooth_l1:SmoothL1",
            summary="Quadratic near the target and linear away from it, over a box's four coordinates.",
            family="coordinates",
            paper=Paper(authors="Girshick", title="Fast R-CNN", year=2015, arxiv="1504.08083"),
            presets={
                "l1": Preset(arguments={"beta": 0.0}, source="the limit of beta to 0"),
                "torchvision": Preset(arguments={"beta": 1 / 9}, source="torchvision's region proposals and heads"),
            },
            inputs=BOXES,
            optimum=0.0,
            invariances=("translation", "flip"),
            separates=True,
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="focal",
            target="nearfar_iou.focal:Focal",
            summary="Binary cross-entropy with the weight of easy examples taken down.",
            family="classification",
            paper=Paper(
                authors="Lin, Goyal, Girshick, He, Dollár",
                title="Focal Loss for Dense Object Detection",
                year=2017,
                arxiv="1708.02002",
            ),
            deviations=("A target between 0 and 1 costs the expectation over both labels; the paper has hard ones.",),
            presets={
                "retinanet": Preset(
                    arguments={"alpha": 0.25, "gamma": 2.0, "normalizer": "positives"},
                    source="Lin et al. 2017, section 4.1",
                )
            },
            inputs=("logits", "targets"),
            optimum=0.0,
            memory=1,
            synchronizations=0,
        ),
    ]
