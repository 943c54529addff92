"""Losses that add a margin to an angle or take one from a cosine."""

from __future__ import annotations

import math

from nearfar.spec import Paper, Preset
from nearfar_margin.specs.shared import CLAMPED, UNMINED, margin_loss

__all__ = ["SPECS"]

_ARCFACE = Paper(
    authors="Deng, Guo, Yang, Xue, Kotsia, Zafeiriou",
    title="ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
    year=2019,
    arxiv="1801.07698",
)
_LINEAR = (
    "Beyond θ + m = π, where cos(θ + m) would rise again, the target's logit is s(cos θ − m sin m), as in the authors' "
    "code"
)

SPECS = (
    margin_loss(
        name="cosface",
        target="nearfar_margin.cosface:CosFace",
        summary="Additive cosine margin: the target's cosine must win by m.",
        schedulable=("margin", "scale"),
        paper=Paper(
            authors="Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu",
            title="CosFace: Large Margin Cosine Loss for Deep Face Recognition",
            year=2018,
            arxiv="1801.09414",
        ),
        aliases=("lmcl",),
        deviations=(UNMINED,),
        presets={
            "insightface": Preset(
                arguments={"scale": 64.0, "margin": 0.4},
                source="insightface recognition/arcface_torch, class CosFace; its Glint360K configurations",
            ),
            "unnormalized": Preset(
                arguments={"scale": "norm", "margin": 0.35},
                source="Wang et al. 2018 (1801.09414), section 4.2: without feature normalisation, to compare with",
            ),
        },
    ),
    margin_loss(
        name="am_softmax",
        target="nearfar_margin.am_softmax:AMSoftmax",
        summary="Additive margin softmax: the function of CosFace with a smaller scale.",
        schedulable=("margin", "scale"),
        paper=Paper(
            authors="Wang, Cheng, Liu, Liu",
            title="Additive Margin Softmax for Face Verification",
            year=2018,
            arxiv="1801.05599",
        ),
        aliases=("additive_margin_softmax",),
        deviations=(UNMINED,),
        presets={
            "unnormalized": Preset(
                arguments={"scale": "norm", "margin": 0.35},
                source="Wang et al. 2018 (1801.05599): without feature normalisation, to compare with",
            ),
        },
    ),
    margin_loss(
        name="arcface",
        target="nearfar_margin.arcface:ArcFace",
        summary="Additive angular margin: the target's angle is widened by m.",
        schedulable=("margin", "scale"),
        paper=_ARCFACE,
        deviations=(
            f"{_LINEAR}; the paper's formula as it stands is beyond_pi='raw'.",
            "A cosine of exactly ±1, where the derivative of the angle is infinite, passes the gradient of "
            "t cos m alone.",
            UNMINED,
        ),
        detached="gradient='detached': the margin changes the value alone, and the gradient is that of cos θ, as "
        "in insightface's code.",
        presets={
            "insightface_2023": Preset(
                arguments={"scale": 64.0, "margin": 0.5, "gradient": "detached", "beyond_pi": "raw"},
                source="insightface recognition/arcface_torch since commit 657ae30e (December 2022): the angle is "
                "widened under no_grad",
            ),
            "insightface_2019": Preset(
                arguments={"scale": 64.0, "margin": 0.5, "gradient": "exact", "beyond_pi": "linear"},
                source="insightface recognition/ArcFace (mxnet), and arcface_torch before December 2022",
            ),
            "insightface_2019_easy": Preset(
                arguments={"scale": 64.0, "margin": 0.5, "gradient": "exact", "easy_margin": True},
                source="insightface recognition/ArcFace (mxnet) with easy_margin",
            ),
            "pml": Preset(
                arguments={
                    "scale": 64.0,
                    "margin": math.radians(28.6),
                    "gradient": "exact",
                    "beyond_pi": "linear",
                },
                source="pytorch-metric-learning ArcFaceLoss: margin=28.6 degrees, scale=64",
            ),
            "acos": Preset(
                arguments={"scale": 64.0, "margin": 0.5, "gradient": "exact", "beyond_pi": "raw"},
                source="cos(acos t + m) under autograd, as fast-reid's code has it",
            ),
        },
    ),
    margin_loss(
        name="combined_margin",
        target="nearfar_margin.combined_margin:CombinedMargin",
        summary="Multiplicative, additive angular and additive cosine margin in one.",
        schedulable=("m1", "m2", "m3", "scale"),
        paper=_ARCFACE,
        deviations=(CLAMPED, UNMINED),
        detached="gradient='detached': the margins change the value alone, and the gradient is that of cos θ.",
        presets={
            "cm1": Preset(
                arguments={"m1": 1.0, "m2": 0.3, "m3": 0.2},
                source="Deng et al. 2019 (1801.07698), table 2: CM1; insightface recognition/ArcFace, 'combined'",
            ),
            "cm2": Preset(
                arguments={"m1": 0.9, "m2": 0.4, "m3": 0.15},
                source="Deng et al. 2019 (1801.07698), table 2: CM2",
            ),
            "multiplicative": Preset(
                arguments={"m1": 1.5, "m2": 0.0, "m3": 0.0},
                source="insightface recognition/ArcFace, experiments with combined margins: 1.5, 0, 0",
            ),
            "multiplicative_angular": Preset(
                arguments={"m1": 1.2, "m2": 0.4, "m3": 0.0},
                source="insightface recognition/ArcFace, experiments with combined margins: 1.2, 0.4, 0",
            ),
            "multiplicative_cosine": Preset(
                arguments={"m1": 1.1, "m2": 0.0, "m3": 0.35},
                source="insightface recognition/ArcFace, experiments with combined margins: 1.1, 0, 0.35",
            ),
        },
    ),
    margin_loss(
        name="subcenter_arcface",
        target="nearfar_margin.subcenter_arcface:SubcenterArcFace",
        summary="ArcFace with several vectors a class, of which the nearest counts.",
        schedulable=("margin", "scale"),
        paper=Paper(
            authors="Deng, Guo, Liu, Gong, Zafeiriou",
            title="Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces",
            year=2020,
            venue="ECCV",
        ),
        deviations=(f"{_LINEAR} of ArcFace.", CLAMPED, UNMINED),
        presets={
            "pml": Preset(
                arguments={"margin": math.radians(28.6), "centers": 3},
                source="pytorch-metric-learning SubCenterArcFaceLoss: margin=28.6 degrees, sub_centers=3",
            ),
        },
    ),
)
