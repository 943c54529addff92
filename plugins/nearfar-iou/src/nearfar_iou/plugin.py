"""Entry module of the plugin ``iou``: losses of detection, on boxes and on their scores."""

from __future__ import annotations

from typing import Any

from nearfar import CommandSpec, DistanceSpec, LossSpec, MinerSpec, Paper, Preset, RecipeSpec, hookimpl
from nearfar_iou.recipes import RECIPES

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


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [*_overlap(), *_around_overlap(), *_coordinates(), *_rotated(), *_logits()]


@hookimpl
def nearfar_recipes() -> tuple[RecipeSpec, ...]:
    return RECIPES


@hookimpl
def nearfar_commands() -> list[CommandSpec]:
    return [
        CommandSpec(
            group="bench",
            name="boxes",
            target="nearfar_iou.commands.boxes:command",
            summary="Boxes that descend towards targets, as in the paper of DIoU.",
        ),
        CommandSpec(
            group="plot",
            name="focal",
            target="nearfar_iou.commands.focal:command",
            summary="Focal loss over γ, with its gradient.",
        ),
        CommandSpec(
            group="plot",
            name="regression",
            target="nearfar_iou.commands.regression:command",
            summary="L1, L2, smooth L1 and balanced L1, with their gradients.",
        ),
    ]


def _box_loss(**fields: Any) -> LossSpec:
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


def _overlap() -> list[LossSpec]:
    """Losses on the overlap of boxes, and on what else is between them."""
    return [
        _box_loss(
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
        _box_loss(
            name="giou",
            target="nearfar_iou.giou:GIoU",
            definition="nearfar_iou.definitions.boxes:giou",
            summary="1 − IoU plus the part of the hull of both boxes that neither fills.",
            paper=GENERALIZED_IOU,
            deviations=(INVERTED,),
            invariances=EVERYWHERE,
            separates=True,
        ),
        _box_loss(
            name="diou",
            target="nearfar_iou.diou:DIoU",
            definition="nearfar_iou.definitions.boxes:diou",
            summary="1 − IoU plus the squared distance of the centres, in diagonals of the hull of both boxes.",
            paper=DISTANCE_IOU,
            deviations=(INVERTED,),
            invariances=EVERYWHERE,
            separates=True,
        ),
        _box_loss(
            name="ciou",
            target="nearfar_iou.ciou:CIoU",
            definition="nearfar_iou.definitions.boxes:ciou",
            summary="DIoU loss plus a difference in aspect ratio, which counts the more the better boxes overlap.",
            schedulable=("alpha_gate",),
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
        _box_loss(
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
        _box_loss(
            name="siou",
            target="nearfar_iou.siou:SIoU",
            definition="nearfar_iou.definitions.boxes:siou",
            summary="1 − IoU plus a distance that counts less along an axis than askew, and a difference in shape.",
            schedulable=("theta",),
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
        _box_loss(
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
        _box_loss(
            name="wiou",
            target="nearfar_iou.wiou:WIoU",
            definition="nearfar_iou.definitions.boxes:wiou",
            summary="1 − IoU weighted by the distance of the centres and, in v3, by how usual the box is.",
            schedulable=("alpha", "delta", "momentum"),
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
        _box_loss(
            name="bounded_iou",
            target="nearfar_iou.bounded_iou:BoundedIoU",
            definition="nearfar_iou.definitions.boxes:bounded_iou",
            summary="For each of a box's four coordinates, how far from 1 the best IoU is that it leaves possible.",
            schedulable=("beta",),
            paper=Paper(
                authors="Tychsen-Smith, Petersson",
                title="Improving Object Localization with Fitness NMS and Bounded IoU Loss",
                year=2017,
                arxiv="1711.00164",
            ),
            deviations=(INVERTED,),
            invariances=EVERYWHERE,
        ),
    ]


def _around_overlap() -> list[LossSpec]:
    """Losses round one of those on overlap."""
    return [
        _box_loss(
            name="alpha_iou",
            target="nearfar_iou.alpha_iou:AlphaIoU",
            definition="nearfar_iou.definitions.boxes:alpha_iou",
            summary="Another box loss with its IoU and each of its penalties raised to a power.",
            schedulable=("power",),
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
        _box_loss(
            name="focal_iou",
            target="nearfar_iou.focal_iou:FocalIoU",
            definition="nearfar_iou.definitions.boxes:focal_iou",
            summary="Another box loss, each box weighted by a power of its IoU: focal_iou(eiou) is Focal-EIoU.",
            schedulable=("gamma",),
            family="wrapper",
            paper=EFFICIENT_IOU,
            deviations=("The weight is held constant; with a gradient it would push apart boxes that overlap little.",),
            wraps=("*iou",),
            example="loss=eiou",
            invariances=EVERYWHERE,
            detached="The weight by IoU is held constant: boxes that share nothing cost nothing and must not attract.",
        ),
        _box_loss(
            name="inner_iou",
            target="nearfar_iou.inner_iou:InnerIoU",
            definition="nearfar_iou.definitions.boxes:inner_iou",
            summary="Another box loss with the IoU of smaller, or larger, boxes within it.",
            schedulable=("ratio",),
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
    ]


def _coordinates() -> list[LossSpec]:
    """Losses on coordinates, each for itself."""
    moved = {"family": "coordinates", "invariances": ("translation", "flip"), "separates": True}
    return [
        _box_loss(
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
            **moved,
        ),
        _box_loss(
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
            **moved,
        ),
        _box_loss(
            name="smooth_l1",
            target="nearfar_iou.smooth_l1:SmoothL1",
            definition="nearfar_iou.definitions.coordinates:smooth_l1",
            summary="Quadratic near the target and linear away from it, over a box's four coordinates.",
            schedulable=("beta",),
            paper=Paper(authors="Girshick", title="Fast R-CNN", year=2015, arxiv="1504.08083"),
            presets={
                "l1": Preset(arguments={"beta": 0.0}, source="the limit of beta to 0"),
                "torch": Preset(arguments={"coord": "mean"}, source="torch.nn.SmoothL1Loss"),
                "torchvision": Preset(arguments={"beta": 1 / 9}, source="torchvision's region proposals and heads"),
            },
            **moved,
        ),
        _box_loss(
            name="balanced_l1",
            target="nearfar_iou.balanced_l1:BalancedL1",
            definition="nearfar_iou.definitions.coordinates:balanced_l1",
            summary="Smooth L1 whose slope rises early, so that accurate boxes count for more.",
            schedulable=("alpha", "gamma", "beta"),
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
            **moved,
        ),
    ]


def _rotated() -> list[LossSpec]:
    """Losses on rotated boxes, centre, sides and angle, as normal distributions."""
    floor = "A side less than 1e-4 of the longest is read as so long: a distribution without width has no inverse."
    shifted = "1 − 1 / τ is taken off the paper's 1 − 1 / (τ + f), so that a perfect prediction costs 0 for every τ."
    return [
        _box_loss(
            name="gwd",
            target="nearfar_iou.gwd:GWD",
            definition="nearfar_iou.definitions.rotated:gwd",
            summary="Wasserstein distance of rotated boxes as normal distributions.",
            schedulable=("tau",),
            family="rotated",
            paper=Paper(
                authors="Yang, Yan, Ming, Wang, Zhang, Tian",
                title="Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss",
                year=2021,
                arxiv="2101.11952",
            ),
            deviations=(shifted, floor),
            presets={
                "sqrt": Preset(
                    arguments={"transform": "sqrt", "tau": 2.0}, source="gwd_loss beside GDLoss_v1 in mmrotate"
                ),
                "log": Preset(arguments={"transform": "log1p", "tau": 1.0}, source="Yang et al. 2021, f = ln(1 + W²)"),
                "mmrotate": Preset(
                    arguments={"transform": "log1p_sqrt", "tau": None, "normalize": True},
                    source="GDLoss in mmrotate, loss_type='gwd'; weight 5",
                ),
            },
            invariances=("translation", "flip"),
            separates=True,
        ),
        _box_loss(
            name="kld",
            target="nearfar_iou.kld:KLD",
            definition="nearfar_iou.definitions.rotated:kld",
            summary="Kullback-Leibler divergence of rotated boxes as normal distributions.",
            schedulable=("tau",),
            family="rotated",
            paper=Paper(
                authors="Yang, Yang, Yang, Ming, Wang, Tian, Yan",
                title="Learning High-Precision Bounding Box for Rotated Object Detection via "
                "Kullback-Leibler Divergence",
                year=2021,
                arxiv="2106.01883",
            ),
            deviations=(shifted, floor),
            presets={
                "mmrotate": Preset(
                    arguments={"direction": "target_pred", "transform": "log1p_sqrt", "tau": 1.0},
                    source="GDLoss in mmrotate, loss_type='kld', tau=1",
                ),
                "mmrotate_stable": Preset(
                    arguments={"direction": "target_pred", "transform": "log1p", "tau": 1.0},
                    source="mmrotate's configurations kld_stable: sqrt=False; weight 5.5",
                ),
                "jeffreys": Preset(
                    arguments={"direction": "jeffreys", "transform": "log1p_sqrt", "tau": 1.0},
                    source="GDLoss in mmrotate, loss_type='jd', tau=1",
                ),
            },
            invariances=EVERYWHERE,
            separates=True,
        ),
        _box_loss(
            name="probiou",
            target="nearfar_iou.probiou:ProbIoU",
            definition="nearfar_iou.definitions.rotated:probiou",
            summary="Hellinger or Bhattacharyya distance of rotated boxes as normal distributions.",
            family="rotated",
            paper=PROBIOU,
            deviations=(floor,),
            presets={
                "l1": Preset(arguments={"form": "hellinger"}, source="Llerena et al. 2021, L1; ultralytics"),
                "l2": Preset(arguments={"form": "bhattacharyya"}, source="Llerena et al. 2021, L2: to start with"),
            },
            invariances=EVERYWHERE,
        ),
    ]


def _logit_loss(**fields: Any) -> LossSpec:
    """A loss on logits: what is beyond doubt and right costs 0."""
    shared: dict[str, Any] = {
        "family": "classification",
        "inputs": ("logits", "targets"),
        "optional_inputs": ("logit_weights", "logit_normalizer", "logit_groups"),
        "accepts": ("matches",),
        "optimum": 0.0,
        "memory": 1,
        "synchronizations": 0,
    }
    return LossSpec(**(shared | fields))


def _logits() -> list[LossSpec]:
    """Losses on scores."""
    focal = Paper(
        authors="Lin, Goyal, Girshick, He, Dollár",
        title="Focal Loss for Dense Object Detection",
        year=2017,
        arxiv="1708.02002",
    )
    generalized = Paper(
        authors="Li, Wang, Wu, Chen, Hu, Li, Tang, Yang",
        title="Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object Detection",
        year=2020,
        arxiv="2006.04388",
    )
    return [
        _logit_loss(
            name="cross_entropy",
            target="nearfar_iou.cross_entropy:CrossEntropy",
            definition="nearfar_iou.definitions.logits:cross_entropy",
            summary="Cross-entropy of logits and class ids, with label smoothing.",
            schedulable=("label_smoothing",),
            paper=Paper(
                authors="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna",
                title="Rethinking the Inception Architecture for Computer Vision",
                year=2016,
                arxiv="1512.00567",
            ),
            presets={
                "inception": Preset(arguments={"label_smoothing": 0.1}, source="Szegedy et al. 2016, section 7"),
                "torch": Preset(arguments={"ignore_index": -100}, source="torch.nn.CrossEntropyLoss"),
            },
        ),
        _logit_loss(
            name="focal",
            target="nearfar_iou.focal:Focal",
            definition="nearfar_iou.definitions.logits:focal",
            summary="Cross-entropy, of sigmoids or of a softmax, with the weight of easy examples taken down.",
            paper=focal,
            deviations=("A target between 0 and 1 costs the expectation over both labels; the paper has hard ones.",),
            presets={
                "retinanet": Preset(
                    arguments={"alpha": 0.25, "gamma": 2.0, "normalizer": "positives"},
                    source="Lin et al. 2017, section 4.1",
                ),
                "fvcore": Preset(arguments={"alpha": None, "gamma": 2.0}, source="fvcore's default alpha of -1"),
                "ultralytics": Preset(arguments={"alpha": 0.25, "gamma": 1.5}, source="ultralytics, FocalLoss"),
                "softmax": Preset(
                    arguments={"activation": "softmax", "normalizer": "positives"},
                    source="Detectron, SoftmaxFocalLoss: background is class 0",
                ),
            },
        ),
        _logit_loss(
            name="quality_focal",
            target="nearfar_iou.quality_focal:QualityFocal",
            definition="nearfar_iou.definitions.logits:quality_focal",
            summary="Cross-entropy with a quality from 0 to 1, weighted by how far the score is off it.",
            schedulable=("beta",),
            paper=generalized,
            presets={
                "gfl": Preset(
                    arguments={"beta": 2.0, "normalizer": "positives"}, source="Li et al. 2020; mmdet, QualityFocalLoss"
                )
            },
        ),
        _logit_loss(
            name="varifocal",
            target="nearfar_iou.varifocal:Varifocal",
            definition="nearfar_iou.definitions.logits:varifocal",
            summary="Cross-entropy with a quality that weighs positives, and easy negatives taken down.",
            schedulable=("alpha", "gamma"),
            paper=Paper(
                authors="Zhang, Wang, Dayoub, Sünderhauf",
                title="VarifocalNet: An IoU-aware Dense Object Detector",
                year=2021,
                arxiv="2008.13367",
            ),
            presets={
                "vfnet": Preset(
                    arguments={"alpha": 0.75, "gamma": 2.0, "normalizer": "positives"},
                    source="Zhang et al. 2021; mmdet, VarifocalLoss",
                )
            },
        ),
        _logit_loss(
            name="distribution_focal",
            target="nearfar_iou.distribution_focal:DistributionFocal",
            definition="nearfar_iou.definitions.logits:distribution_focal",
            summary="A distance as a distribution over whole numbers, raised at the two next to its target.",
            paper=generalized,
            deviations=("A distance beyond the last bin is read as the last; the codes take 0.01 off that.",),
            presets={"gfl": Preset(arguments={"coord": "mean"}, source="Li et al. 2020; mmdet and ultralytics")},
            inputs=("distance_logits", "target_distances"),
            sample="nearfar_iou.samples:distances",
            optional_inputs=("box_weights", "box_normalizer", "box_groups"),
            accepts=(),
            optimum=None,
        ),
    ]


@hookimpl
def nearfar_distances() -> list[DistanceSpec]:
    held = "α is held constant, as in the loss: the gradient is that of v alone."
    return [
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
                "distance_gradient": held,
                **{f"distance_gradient[box_format={each!r}]": held for each in ("xywh", "cxcywh", "ltrb")},
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
    ]


def _similarity(name: str, cls: str, summary: str, **fields: Any) -> DistanceSpec:
    """A similarity of boxes: named as the loss that is 1 less it."""
    shared: dict[str, Any] = {"family": "iou", "on": "boxes", "similarity": True, "memory": 2, "synchronizations": 0}
    target, definition = f"nearfar_iou.distances.{name}:{cls}Similarity", f"nearfar_iou.definitions.matching:{name}"
    return DistanceSpec(name=name, target=target, summary=summary, definition=definition, **shared | fields)


@hookimpl
def nearfar_miners() -> list[MinerSpec]:
    return [*_matchers(), *_element_miners()]


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


def _matchers() -> list[MinerSpec]:
    scored = (*BOXES, "logits", "targets")
    return [
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
                "roi": Preset(
                    arguments={"positive": 0.5, "negative": 0.5, "low_quality": None}, source="Ren et al. 2015"
                ),
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
            presets={
                "ultralytics": Preset(arguments={"k": 10, "alpha": 0.5, "beta": 6.0}, source="ultralytics, YOLOv8")
            },
            inputs=scored,
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
            inputs=scored,
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
    ]


def _element_miners() -> list[MinerSpec]:
    """What chooses among the terms of any loss, of boxes, logits or embeddings."""
    shared: dict[str, Any] = {"family": "elements", "produces": "elements", "inputs": ("terms",), "reference": False}
    return [
        MinerSpec(
            name="ohem",
            target="nearfar_iou.miners.ohem:OHEM",
            summary="Of a loss's terms those that cost the most: online hard example mining.",
            schedulable=("share",),
            paper=Paper(
                authors="Shrivastava, Gupta, Girshick",
                title="Training Region-based Object Detectors with Online Hard Example Mining",
                year=2016,
                arxiv="1604.03540",
            ),
            deviations=("Regions that overlap a harder one are kept; the paper suppresses them.",),
            memory=1,
            definition="nearfar_iou.definitions.matching:ohem",
            **shared,
        ),
        MinerSpec(
            name="hard_negative_ratio",
            target="nearfar_iou.miners.hard_negative_ratio:HardNegativeRatio",
            summary="Every positive, and of the negatives so many times as many that cost the most.",
            schedulable=("ratio",),
            paper=Paper(
                authors="Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg",
                title="SSD: Single Shot MultiBox Detector",
                year=2016,
                arxiv="1512.02325",
            ),
            reduces=("element", "pos_pair", "neg_pair"),
            memory=1,
            definition="nearfar_iou.definitions.matching:hard_negative_ratio",
            **shared,
        ),
    ]
