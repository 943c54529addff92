"""Entry module of the plugin ``margin``."""

from __future__ import annotations

import math

from nearfar.hookspecs import hookimpl
from nearfar.spec import LossSpec, Paper, Preset

ACCEPTS = ("pairs", "triplets", "weights")
NEEDS = ("num_classes", "embedding_size")
UNMINED = (
    "An element a miner did not select weighs 0, so with nothing selected the loss is 0; pytorch-metric-learning "
    "then weighs every element by 1."
)


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [
        LossSpec(
            name="softmax",
            target="nearfar_margin.softmax:Softmax",
            summary="Cross entropy of a linear classifier on the embeddings, with label smoothing.",
            family="margin",
            paper=Paper(
                authors="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna",
                title="Rethinking the Inception Architecture for Computer Vision",
                year=2016,
                arxiv="1512.00567",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            uses_norm=True,
            deviations=(UNMINED,),
            presets={
                "inception": Preset(
                    arguments={"label_smoothing": 0.1, "smoothing": "uniform"},
                    source="Szegedy et al. 2016 (1512.00567), section 7: smoothing of 0.1, spread over every class",
                ),
                "fast_reid": Preset(
                    arguments={"label_smoothing": 0.1, "smoothing": "others"},
                    source="fast-reid, cross_entropy_loss with a fixed eps: smoothing spread over the other classes",
                ),
            },
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="norm_softmax",
            target="nearfar_margin.norm_softmax:NormSoftmax",
            summary="Softmax on scaled cosines, without a margin: NormFace, NSL.",
            family="margin",
            paper=Paper(
                authors="Wang, Xiang, Cheng, Yuille",
                title="NormFace: L2 Hypersphere Embedding for Face Verification",
                year=2017,
                arxiv="1704.06369",
            ),
            aliases=("normface", "nsl"),
            needs=NEEDS,
            accepts=ACCEPTS,
            deviations=(
                "The scale is a constant by default; the paper learns it, as learn_scale=True does.",
                UNMINED,
            ),
            presets={
                "pml": Preset(
                    arguments={"scale": 20.0},
                    source="pytorch-metric-learning NormalizedSoftmaxLoss: temperature 0.05",
                ),
                "learned": Preset(
                    arguments={"scale": "auto", "learn_scale": True},
                    source="NormFace (1704.06369): learned; started at CosFace's lower bound here",
                ),
            },
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="cosface",
            target="nearfar_margin.cosface:CosFace",
            summary="Additive cosine margin: the target's cosine must win by m.",
            family="margin",
            paper=Paper(
                authors="Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu",
                title="CosFace: Large Margin Cosine Loss for Deep Face Recognition",
                year=2018,
                arxiv="1801.09414",
            ),
            aliases=("lmcl",),
            needs=NEEDS,
            accepts=ACCEPTS,
            deviations=(UNMINED,),
            presets={
                "am_softmax": Preset(
                    arguments={"scale": 30.0, "margin": 0.35},
                    source="Wang et al. 2018, Additive Margin Softmax for Face Verification (1801.05599)",
                ),
                "insightface": Preset(
                    arguments={"scale": 64.0, "margin": 0.4},
                    source="insightface recognition/arcface_torch, class CosFace; its Glint360K configurations",
                ),
            },
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="arcface",
            target="nearfar_margin.arcface:ArcFace",
            summary="Additive angular margin: the target's angle is widened by m.",
            family="margin",
            paper=Paper(
                authors="Deng, Guo, Yang, Xue, Kotsia, Zafeiriou",
                title="ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
                year=2019,
                arxiv="1801.07698",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            deviations=(
                "Beyond θ + m = π, where cos(θ + m) would rise again, the target's logit is s(cos θ − m sin m), as in "
                "the authors' code; the paper's formula as it stands is beyond_pi='raw'.",
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
                    source="cos(acos t + m) under autograd, as ElasticFace's code has it",
                ),
            },
            memory=1,
            synchronizations=0,
        ),
    ]
