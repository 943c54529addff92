"""Losses whose margin, scale or weights follow the training, the sample or the negatives."""

from __future__ import annotations

from nearfar.spec import Paper, Preset
from nearfar_margin.specs.shared import CLAMPED, UNMINED, margin_loss

__all__ = ["SPECS"]

_LINEAR = (
    "Beyond θ + m = π, where cos(θ + m) would rise again, the target's logit is s(cos θ − m sin m), as in the code of "
    "ArcFace."
)
_HARD = "A negative is hard against the target's logit as it is, also where that is no longer s cos(θ + m)."

SPECS = (
    margin_loss(
        name="adacos",
        target="nearfar_margin.adacos:AdaCos",
        summary="Softmax on cosines whose scale follows the training, without any number to choose.",
        paper=Paper(
            authors="Zhang, Zhao, Qiao, Wang, Li",
            title="AdaCos: Adaptively Scaling Cosine Logits for Effectively Learning Deep Face Representations",
            year=2019,
            arxiv="1905.00292",
        ),
        deviations=(
            "Where the estimate is no positive number, as with all other classes on the far side, the scale stays.",
            UNMINED,
        ),
        detached="The scale follows the cosines without a gradient of its own.",
        presets={
            "fixed": Preset(
                arguments={"fixed": True},
                source="Zhang et al. 2019 (1905.00292), section 4.1: fixed AdaCos",
            ),
        },
    ),
    margin_loss(
        name="curricularface",
        target="nearfar_margin.curricularface:CurricularFace",
        summary="ArcFace whose hard negatives count little at first and more as the training goes on.",
        schedulable=("margin", "scale", "momentum"),
        paper=Paper(
            authors="Huang, Wang, Tai, Liu, Shen, Li, Li, Huang",
            title="CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition",
            year=2020,
            arxiv="2004.00288",
        ),
        deviations=(_LINEAR, _HARD, CLAMPED, UNMINED),
        detached="τ, the running mean of the cosines, has no gradient.",
        presets={
            "authors": Preset(
                arguments={"margin": 0.5, "scale": 64.0, "momentum": 0.01},
                source="the authors' CurricularFace: τ keeps 0.99",
            ),
            "tface": Preset(
                arguments={"margin": 0.5, "scale": 64.0, "momentum": 0.1},
                source="Tencent TFace, the distributed version: alpha=0.1",
            ),
        },
    ),
    margin_loss(
        name="adaface",
        target="nearfar_margin.adaface:AdaFace",
        summary="A margin by the quality of the image, which the length of the embedding stands for.",
        schedulable=("margin", "h", "scale", "momentum"),
        paper=Paper(
            authors="Kim, Jain, Liu",
            title="AdaFace: Quality Adaptive Margin for Face Recognition",
            year=2022,
            arxiv="2204.00964",
        ),
        uses_norm=True,
        deviations=(
            "The cosines are not kept in ±0.999 as in the authors' code, which takes the gradient from angles below "
            "2.6 degrees.",
            "A batch of one sample, of which there is no standard deviation, leaves σ as it is.",
            CLAMPED,
            UNMINED,
        ),
        detached="The length of an embedding, and so its margin, is held constant, as in the paper.",
        presets={
            "authors": Preset(
                arguments={"margin": 0.4, "h": 0.333, "scale": 64.0, "momentum": 0.01},
                source="mk-minchul/AdaFace, README and command line: t_alpha=0.01",
            ),
            "authors_class": Preset(
                arguments={"margin": 0.4, "h": 0.333, "scale": 64.0, "momentum": 1.0},
                source="mk-minchul/AdaFace, the default of its class: t_alpha=1, each batch by itself",
            ),
        },
    ),
    margin_loss(
        name="magface",
        target="nearfar_margin.magface:MagFace",
        summary="ArcFace whose margin grows with the length of the embedding, which is rewarded.",
        schedulable=("shortest", "longest", "least_margin", "greatest_margin", "regularization", "scale"),
        paper=Paper(
            authors="Meng, Zhao, Huang, Zhou",
            title="MagFace: A Universal Representation for Face Recognition and Quality Assessment",
            year=2021,
            arxiv="2103.06627",
        ),
        uses_norm=True,
        deviations=(CLAMPED, UNMINED),
        presets={
            "authors": Preset(
                arguments={"regularization": 35.0, "easy_margin": True},
                source="IrvingMeng/MagFace, run.sh: lambda_g=35",
            ),
            "authors_program": Preset(
                arguments={"regularization": 20.0, "easy_margin": True},
                source="IrvingMeng/MagFace, the default of trainer.py: lambda_g=20",
            ),
        },
    ),
    margin_loss(
        name="elasticface",
        target="nearfar_margin.elasticface:ElasticFace",
        summary="A margin drawn anew for each sample, on the angle or on the cosine.",
        schedulable=("margin", "deviation", "scale"),
        paper=Paper(
            authors="Boutros, Damer, Kirchbuchner, Kuijper",
            title="ElasticFace: Elastic Margin Loss for Deep Face Recognition",
            year=2022,
            arxiv="2109.09416",
        ),
        deviations=(
            "plus gives the nearest sample the smallest margin, as the paper says; the authors' code sorts by the "
            "inverse of the order it means, which leaves margins and cosines all but unrelated.",
            "In evaluation mode every margin is the mean one.",
            CLAMPED,
            UNMINED,
        ),
        expected_failures={
            "permutation": "A sample's margin is drawn by its place in the batch; with plus=True the order does not "
            "matter.",
        },
        presets={
            "arc_plus": Preset(
                arguments={"form": "arc", "margin": 0.5, "deviation": 0.0175, "plus": True},
                source="Boutros et al. 2022 (2109.09416): ElasticFace-Arc+",
            ),
            "cos": Preset(
                arguments={"form": "cos", "margin": 0.35, "deviation": 0.05},
                source="Boutros et al. 2022 (2109.09416): ElasticFace-Cos",
            ),
            "cos_plus": Preset(
                arguments={"form": "cos", "margin": 0.35, "deviation": 0.02, "plus": True},
                source="Boutros et al. 2022 (2109.09416): ElasticFace-Cos+",
            ),
        },
    ),
    margin_loss(
        name="mv_softmax",
        target="nearfar_margin.mv_softmax:MVSoftmax",
        summary="Classes that a sample is mistaken for count more: their logits are raised.",
        schedulable=("margin", "hardness", "scale"),
        paper=Paper(
            authors="Wang, Zhang, Wang, Fu, Shi, Mei",
            title="Mis-classified Vector Guided Softmax Loss for Face Recognition",
            year=2020,
            arxiv="1912.00833",
        ),
        deviations=(_LINEAR, _HARD, CLAMPED, UNMINED),
        presets={
            "arc": Preset(
                arguments={"form": "arc", "margin": 0.5, "hardness": 1.2},
                source="Wang et al. 2020 (1912.00833): MV-Arc-Softmax",
            ),
            "facex_zoo": Preset(
                arguments={"form": "am", "margin": 0.35, "hardness": 1.12, "scale": 32.0, "easy_margin": True},
                source="FaceX-Zoo, MV_Softmax: mv_weight=1.12, no margin for cosines below it",
            ),
        },
    ),
    margin_loss(
        name="kappaface",
        target="nearfar_margin.kappaface:KappaFace",
        summary="ArcFace with a margin for each class: larger where it is scattered or has few samples.",
        schedulable=("margin", "temperature", "balance", "scale"),
        paper=Paper(
            authors="Oinar, Le, Woo",
            title="KappaFace: Adaptive Additive Angular Margin Loss for Deep Face Recognition",
            year=2022,
            arxiv="2201.07394",
        ),
        example="renewal=2",
        deviations=(
            "A class's direction is the mean of its embeddings as they came; the authors smooth each sample's over the "
            "epochs, for which they keep one of every sample.",
            "A class without a sample since the last renewal keeps its margin, and does not enter the mean.",
            CLAMPED,
            UNMINED,
        ),
    ),
    margin_loss(
        name="p2sgrad",
        target="nearfar_margin.p2sgrad:P2SGrad",
        summary="The loss whose gradient is P2SGrad: cosines in the place of probabilities.",
        paper=Paper(
            authors="Zhang, Zhao, Yan, Gao, Wang, Li, Liu",
            title="P2SGrad: Refined Gradients for Optimizing Deep Face Models",
            year=2019,
            arxiv="1905.02479",
        ),
        deviations=(
            "The sum over the classes, as in the paper; pytorch-metric-learning's is their mean and twice as large, a "
            "gradient that fades as classes are added.",
            UNMINED,
        ),
        optimum=0.0,
    ),
    margin_loss(
        name="unified_ce",
        target="nearfar_margin.unified_ce:UnifiedCE",
        summary="One learned threshold for all pairs: every right one above it, every wrong one below.",
        schedulable=("margin", "scale", "balance"),
        paper=Paper(
            authors="Zhou, Jia, Li, Shen, Duan",
            title="UniFace: Unified Cross-Entropy Loss for Deep Face Recognition",
            year=2023,
            venue="ICCV",
        ),
        aliases=("uniface",),
        deviations=(
            "The exponents are not kept in ±s as in the authors' code, which takes the gradient from the pairs that "
            "are most wrong.",
            UNMINED,
        ),
    ),
    margin_loss(
        name="arcnegface",
        target="nearfar_margin.arcnegface:ArcNegFace",
        summary="ArcFace whose negatives count the more the nearer their cosine is to the target's.",
        schedulable=("margin", "alpha", "sigma", "scale"),
        paper=Paper(
            authors="Liu, Song, Wang, Zhang, Wang, Li, Ouyang",
            title="Towards Flops-constrained Face Recognition",
            year=2019,
            arxiv="1909.00632",
        ),
        deviations=(_LINEAR, CLAMPED, UNMINED),
        detached="The weight τ of a negative is held constant, as in the authors' code.",
    ),
    margin_loss(
        name="npcface",
        target="nearfar_margin.npcface:NPCFace",
        summary="Hard positives and hard negatives cooperate: near hard negatives make a sample's margin larger.",
        schedulable=("margin", "least_margin", "gain", "slope", "offset", "scale"),
        paper=Paper(
            authors="Zeng, Shi, Du, Wang, Lei, Mei",
            title="NPCFace: Negative-Positive Collaborative Training for Large-scale Face Recognition",
            year=2020,
            arxiv="2007.10172",
        ),
        deviations=(
            "Beyond θ = π/2 there is no margin, as in FaceX-Zoo.",
            CLAMPED,
            UNMINED,
        ),
        detached="The margin follows the hard negatives without a gradient of its own.",
    ),
)
