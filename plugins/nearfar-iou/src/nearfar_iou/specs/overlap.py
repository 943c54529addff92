"""Losses on the overlap of boxes, and on what else is between them."""

from __future__ import annotations

from nearfar.spec import Paper, Preset
from nearfar_iou.specs.shared import DISTANCE_IOU, EFFICIENT_IOU, EVERYWHERE, GENERALIZED_IOU, INVERTED, box_loss

__all__ = ["SPECS"]

SPECS = (
    box_loss(
        name="iou",
        target="nearfar_iou.iou:IoU",
        definition="nearfar_iou.definitions.boxes:iou",
        summary="1 − IoU, −ln IoU or 1 − IoU² of matched boxes; flat for boxes that share nothing.",
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
        invariances=EVERYWHERE,
    ),
    box_loss(
        name="giou",
        target="nearfar_iou.giou:GIoU",
        definition="nearfar_iou.definitions.boxes:giou",
        summary="1 − IoU plus the part of the hull of both boxes that neither fills.",
        paper=GENERALIZED_IOU,
        deviations=(INVERTED,),
        invariances=EVERYWHERE,
        separates=True,
    ),
    box_loss(
        name="diou",
        target="nearfar_iou.diou:DIoU",
        definition="nearfar_iou.definitions.boxes:diou",
        summary="1 − IoU plus the squared distance of the centres, in diagonals of the hull of both boxes.",
        paper=DISTANCE_IOU,
        deviations=(INVERTED,),
        invariances=EVERYWHERE,
        separates=True,
    ),
    box_loss(
        name="ciou",
        target="nearfar_iou.ciou:CIoU",
        schedulable=("alpha_gate",),
        definition="nearfar_iou.definitions.boxes:ciou",
        summary="DIoU loss plus a difference in aspect ratio, which counts the more the better boxes overlap.",
        paper=DISTANCE_IOU,
        deviations=(INVERTED,),
        presets={
            "gated": Preset(
                arguments={"alpha_gate": 0.5}, source="Zheng et al. 2021, arXiv:2005.03572; mmdet from 2.16 on"
            ),
            "unit": Preset(
                arguments={"aspect_grad": "unit"}, source="Zheng et al. 2020, for boxes in 0..1; not in their code"
            ),
        },
        invariances=EVERYWHERE,
        separates=True,
        detached="α, the weight of the aspect ratio, is a trade-off and held constant, as in the paper.",
    ),
    box_loss(
        name="eiou",
        target="nearfar_iou.eiou:EIoU",
        definition="nearfar_iou.definitions.boxes:eiou",
        summary="DIoU loss plus the squared differences in width and height, in sides of the hull of both boxes.",
        paper=EFFICIENT_IOU,
        deviations=(INVERTED,),
        invariances=EVERYWHERE,
        expected_failures={
            "separation": "Boxes of one size cost more the further they are, as do all that are far; but those of "
            "different sizes cost less a little further on, as the hull that their sides are measured in grows."
        },
    ),
    box_loss(
        name="siou",
        target="nearfar_iou.siou:SIoU",
        schedulable=("theta",),
        definition="nearfar_iou.definitions.boxes:siou",
        summary="1 − IoU plus a distance that counts less along an axis than askew, and a difference in shape.",
        paper=Paper(
            authors="Gevorgyan",
            title="SIoU Loss: More Powerful Learning for Bounding Box Regression",
            year=2022,
            arxiv="2205.12740",
        ),
        deviations=(INVERTED,),
        invariances=EVERYWHERE,
        separates=True,
    ),
    box_loss(
        name="mpdiou",
        target="nearfar_iou.mpdiou:MPDIoU",
        definition="nearfar_iou.definitions.boxes:mpdiou",
        summary="1 − IoU plus the squared distances of two opposite corners, in diagonals of the image.",
        paper=Paper(
            authors="Ma, Xu",
            title="MPDIoU: A Loss for Efficient and Accurate Bounding Box Regression",
            year=2023,
            arxiv="2307.07662",
        ),
        deviations=(INVERTED,),
        needs=("image_size",),
        invariances=("translation", "flip"),
        separates=True,
    ),
    box_loss(
        name="wiou",
        target="nearfar_iou.wiou:WIoU",
        schedulable=("alpha", "delta", "momentum"),
        definition="nearfar_iou.definitions.boxes:wiou",
        summary="1 − IoU weighted by the distance of the centres and, in v3, by how usual the box is.",
        paper=Paper(
            authors="Tong, Chen, Xu, Yu",
            title="Wise-IoU: Bounding Box Regression Loss with Dynamic Focusing Mechanism",
            year=2023,
            arxiv="2301.10051",
        ),
        deviations=(
            "A batch is taken into the running mean after it was weighed, not before: no box changes the loss of "
            "another.",
            INVERTED,
        ),
        presets={"v1": Preset(arguments={"version": "v1"}, source="Tong et al. 2023")},
        invariances=EVERYWHERE,
        separates=True,
        detached="The hull's diagonal and the weight by the running mean are held constant, as in the paper.",
    ),
    box_loss(
        name="bounded_iou",
        target="nearfar_iou.bounded_iou:BoundedIoU",
        schedulable=("beta",),
        definition="nearfar_iou.definitions.boxes:bounded_iou",
        summary="For each of a box's four coordinates, how far from 1 the best IoU is that it leaves possible.",
        paper=Paper(
            authors="Tychsen-Smith, Petersson",
            title="Improving Object Localization with Fitness NMS and Bounded IoU Loss",
            year=2017,
            arxiv="1711.00164",
        ),
        deviations=(INVERTED,),
        invariances=EVERYWHERE,
    ),
)
