"""Losses on scores: what is beyond doubt and right costs 0."""

from __future__ import annotations

from typing import Any

from nearfar.spec import LossSpec, Paper, Preset

__all__ = ["SPECS"]

_FOCAL = Paper(
    authors="Lin, Goyal, Girshick, He, Dollár",
    title="Focal Loss for Dense Object Detection",
    year=2017,
    arxiv="1708.02002",
)
_GENERALIZED = Paper(
    authors="Li, Wang, Wu, Chen, Hu, Li, Tang, Yang",
    title="Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object Detection",
    year=2020,
    arxiv="2006.04388",
)


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


SPECS = (
    _logit_loss(
        name="cross_entropy",
        target="nearfar_iou.cross_entropy:CrossEntropy",
        schedulable=("label_smoothing",),
        definition="nearfar_iou.definitions.logits:cross_entropy",
        summary="Cross-entropy of logits and class ids, with label smoothing.",
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
        paper=_FOCAL,
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
        schedulable=("beta",),
        definition="nearfar_iou.definitions.logits:quality_focal",
        summary="Cross-entropy with a quality from 0 to 1, weighted by how far the score is off it.",
        paper=_GENERALIZED,
        presets={
            "gfl": Preset(
                arguments={"beta": 2.0, "normalizer": "positives"}, source="Li et al. 2020; mmdet, QualityFocalLoss"
            )
        },
    ),
    _logit_loss(
        name="varifocal",
        target="nearfar_iou.varifocal:Varifocal",
        schedulable=("alpha", "gamma"),
        definition="nearfar_iou.definitions.logits:varifocal",
        summary="Cross-entropy with a quality that weighs positives, and easy negatives taken down.",
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
        paper=_GENERALIZED,
        deviations=("A distance beyond the last bin is read as the last; the codes take 0.01 off that.",),
        presets={"gfl": Preset(arguments={"coord": "mean"}, source="Li et al. 2020; mmdet and ultralytics")},
        inputs=("distance_logits", "target_distances"),
        sample="nearfar_iou.samples:distances",
        optional_inputs=("box_weights", "box_normalizer", "box_groups"),
        accepts=(),
        optimum=None,
    ),
)
