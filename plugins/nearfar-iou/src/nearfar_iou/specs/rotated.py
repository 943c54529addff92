"""Losses on rotated boxes, centre, sides and angle, as normal distributions."""

from __future__ import annotations

from nearfar.spec import Paper, Preset
from nearfar_iou.specs.shared import EVERYWHERE, PROBIOU, box_loss

__all__ = ["SPECS"]

_FLOOR = "A side less than 1e-4 of the longest is read as so long: a distribution without width has no inverse."
_SHIFTED = "1 − 1 / τ is taken off the paper's 1 − 1 / (τ + f), so that a perfect prediction costs 0 for every τ."

SPECS = (
    box_loss(
        name="gwd",
        target="nearfar_iou.gwd:GWD",
        schedulable=("tau",),
        definition="nearfar_iou.definitions.rotated:gwd",
        summary="Wasserstein distance of rotated boxes as normal distributions.",
        family="rotated",
        paper=Paper(
            authors="Yang, Yan, Ming, Wang, Zhang, Tian",
            title="Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss",
            year=2021,
            arxiv="2101.11952",
        ),
        deviations=(_SHIFTED, _FLOOR),
        presets={
            "sqrt": Preset(arguments={"transform": "sqrt", "tau": 2.0}, source="gwd_loss beside GDLoss_v1 in mmrotate"),
            "log": Preset(arguments={"transform": "log1p", "tau": 1.0}, source="Yang et al. 2021, f = ln(1 + W²)"),
            "mmrotate": Preset(
                arguments={"transform": "log1p_sqrt", "tau": None, "normalize": True},
                source="GDLoss in mmrotate, loss_type='gwd'; weight 5",
            ),
        },
        invariances=("translation", "flip"),
        separates=True,
    ),
    box_loss(
        name="kld",
        target="nearfar_iou.kld:KLD",
        schedulable=("tau",),
        definition="nearfar_iou.definitions.rotated:kld",
        summary="Kullback-Leibler divergence of rotated boxes as normal distributions.",
        family="rotated",
        paper=Paper(
            authors="Yang, Yang, Yang, Ming, Wang, Tian, Yan",
            title="Learning High-Precision Bounding Box for Rotated Object Detection via Kullback-Leibler Divergence",
            year=2021,
            arxiv="2106.01883",
        ),
        deviations=(_SHIFTED, _FLOOR),
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
    box_loss(
        name="probiou",
        target="nearfar_iou.probiou:ProbIoU",
        definition="nearfar_iou.definitions.rotated:probiou",
        summary="Hellinger or Bhattacharyya distance of rotated boxes as normal distributions.",
        family="rotated",
        paper=PROBIOU,
        deviations=(_FLOOR,),
        presets={
            "l1": Preset(arguments={"form": "hellinger"}, source="Llerena et al. 2021, L1; ultralytics"),
            "l2": Preset(arguments={"form": "bhattacharyya"}, source="Llerena et al. 2021, L2: to start with"),
        },
        invariances=EVERYWHERE,
    ),
)
