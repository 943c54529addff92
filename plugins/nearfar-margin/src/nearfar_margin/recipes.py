"""Margin losses as they were trained, as recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearfar.contributions import RecipeSpec
from nearfar.spec import Paper

__all__ = ["RECIPES"]

_REALITY_CHECK = Paper(
    authors="Musgrave, Belongie, Lim",
    title="A Metric Learning Reality Check",
    year=2020,
    arxiv="2003.08505",
)
_TUNED = "the authors' page on the paper, optimal hyperparameters, column CUB200"
_BATCHES = "The authors' batches have 512 images, drawn at random."


def _steps(milestones: tuple[float, ...], end: int, weight_decay: float = 5e-4) -> Mapping[str, Mapping[str, Any]]:
    """SGD with a rate of 0.1, which is divided by ten at each milestone of a run that ends at ``end``."""
    shares = tuple(round(milestone / end, 4) for milestone in milestones)
    return {
        "model": {"embedding_size": 512},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": weight_decay},
        "schedule": {"name": "step", "warmup": 0.0, "milestones": shares, "gamma": 0.1},
    }


RECIPES = (
    RecipeSpec(
        name="cosface_casia",
        recipe="cosface(margin=0.35, scale=64.0)",
        summary="CosFace with the schedule of its paper for a small set of faces.",
        paper=Paper(
            authors="Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu",
            title="CosFace: Large Margin Cosine Loss for Deep Face Recognition",
            year=2018,
            arxiv="1801.09414",
        ),
        source="section 4.1: SGD from 0.1, divided by ten at 16, 24 and 28 of 30 thousand steps; weight decay 5e-4",
        notes=(_BATCHES, "The momentum is not in the paper: 0.9, as in ArcFace's."),
        settings=_steps((16, 24, 28), 30),
    ),
    RecipeSpec(
        name="arcface_casia",
        recipe="arcface(margin=0.5, scale=64.0)",
        summary="ArcFace with the schedule of its paper for CASIA-WebFace.",
        paper=Paper(
            authors="Deng, Guo, Yang, Xue, Kotsia, Zafeiriou",
            title="ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
            year=2019,
            arxiv="1801.07698",
        ),
        source="section 3.1: SGD from 0.1, divided by ten at 20 and 28 of 32 thousand steps; weight decay 5e-4",
        notes=(_BATCHES,),
        settings=_steps((20, 28), 32),
    ),
    RecipeSpec(
        name="arcface_ms1m",
        recipe="arcface(margin=0.5, scale=64.0)",
        summary="ArcFace with the schedule of its paper for MS1MV2.",
        paper=Paper(
            authors="Deng, Guo, Yang, Xue, Kotsia, Zafeiriou",
            title="ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
            year=2019,
            arxiv="1801.07698",
        ),
        source="section 3.1: SGD from 0.1, divided by ten at 100 and 160 of 180 thousand steps; weight decay 5e-4",
        notes=(_BATCHES,),
        settings=_steps((100, 160), 180),
    ),
    RecipeSpec(
        name="arcface_ms1mv3",
        recipe="arcface(margin=0.5, scale=64.0)",
        summary="ArcFace as insightface trains it on one GPU today, on MS1MV3.",
        paper=Paper(
            authors="Deng, Guo, Yang, Xue, Kotsia, Zafeiriou",
            title="ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
            year=2019,
            arxiv="1801.07698",
        ),
        source="deepinsight/insightface, arcface_torch, configs/ms1mv3_r50_onegpu.py: SGD from 0.02, falling linearly "
        "to 0 over 20 epochs; weight decay 5e-4",
        notes=(
            "The authors' batches have 128 images, drawn at random.",
            "The authors cut the gradients of the network alone to a norm of 5; here those of the head count too.",
        ),
        settings={
            "model": {"embedding_size": 512},
            "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4, "clip": 5.0},
            "schedule": {"name": "linear", "warmup": 0.0},
        },
    ),
    RecipeSpec(
        name="sphereface_casia",
        recipe="sphereface(margin=4, lambda_base=1000.0, lambda_gamma=0.12, lambda_power=1.0, lambda_min=5.0)",
        summary="SphereFace with the schedule of its authors for CASIA-WebFace.",
        paper=Paper(
            authors="Liu, Wen, Yu, Li, Raj, Song",
            title="SphereFace: Deep Hypersphere Embedding for Face Recognition",
            year=2017,
            arxiv="1704.08063",
        ),
        source="wy1iu/sphereface, train/code/sphereface_solver.prototxt: SGD from 0.1, divided by ten at 16 and 24 of "
        "28 thousand steps; weight decay 5e-4",
        notes=('Faces of 112 × 96 pixels: --set model.image_size="[112, 96]" --set model.pixels=sphereface.',),
        settings=_steps((16, 24), 28),
    ),
    RecipeSpec(
        name="curricularface_ms1m",
        recipe="curricularface(margin=0.5, scale=64.0, momentum=0.01)",
        summary="CurricularFace with the schedule of its authors for MS1MV2.",
        paper=Paper(
            authors="Huang, Wang, Tai, Liu, Shen, Li, Li, Huang",
            title="CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition",
            year=2020,
            arxiv="2004.00288",
        ),
        source="HuangYG123/CurricularFace, config.py: SGD from 0.1, divided by ten at 10, 18 and 22 of 24 epochs",
        notes=(_BATCHES,),
        settings=_steps((10, 18, 22), 24),
    ),
    RecipeSpec(
        name="adaface_ms1m",
        recipe="adaface(margin=0.4, h=0.333, scale=64.0, momentum=0.01)",
        summary="AdaFace with the schedule of its authors for MS1MV2.",
        paper=Paper(
            authors="Kim, Jain, Liu",
            title="AdaFace: Quality Adaptive Margin for Face Recognition",
            year=2022,
            arxiv="2204.00964",
        ),
        source="mk-minchul/AdaFace, scripts/run_ir101_ms1mv2.sh and config.py: SGD from 0.1, divided by ten at 12, 20 "
        "and 24 of 26 epochs; weight decay 1e-4",
        notes=(_BATCHES, "The authors also lower the resolution of images, crop them and change their colours."),
        settings=_steps((12, 20, 24), 26, weight_decay=1e-4),
    ),
    RecipeSpec(
        name="magface_ms1m",
        recipe="magface(regularization=35.0)",
        summary="MagFace with the schedule of its authors for MS1MV2.",
        paper=Paper(
            authors="Meng, Zhao, Huang, Zhou",
            title="MagFace: A Universal Representation for Face Recognition and Quality Assessment",
            year=2021,
            arxiv="2103.06627",
        ),
        source="IrvingMeng/MagFace, run/run.sh: SGD from 0.1, divided by ten at 10, 18 and 22 of 25 epochs",
        notes=(_BATCHES,),
        settings=_steps((10, 18, 22), 25),
    ),
    RecipeSpec(
        name="elasticface_ms1m",
        recipe="elasticface(form='arc', margin=0.5, deviation=0.05)",
        summary="ElasticFace-Arc with the schedule of its authors for MS1MV2.",
        paper=Paper(
            authors="Boutros, Damer, Kirchbuchner, Kuijper",
            title="ElasticFace: Elastic Margin Loss for Deep Face Recognition",
            year=2022,
            arxiv="2109.09416",
        ),
        source="fdbtrs/ElasticFace, config/config.py: SGD from 0.1, divided by ten at the start of the 8th, 14th, 20th "
        "and 25th of 26 epochs",
        notes=("The authors' batches have 128 images a GPU, drawn at random.",),
        settings=_steps((7, 13, 19, 24), 26),
    ),
    RecipeSpec(
        name="reality_check_norm_softmax",
        recipe="norm_softmax(scale=9.2)",
        summary="The scale tuned for normalised softmax, as fairly as for the others.",
        paper=_REALITY_CHECK,
        source=_TUNED,
        notes=(
            "It is 1 / 0.1087 there; on Cars196 1 / 0.0886, on SOP 1 / 0.063.",
            "The rate of the class vectors is 0.011 on Cars196 and 5.46e-4 on SOP.",
        ),
        settings={"optimizer": {"criterion_lr": 4.46e-3}},
    ),
    RecipeSpec(
        name="reality_check_cosface",
        recipe="cosface(margin=0.6182, scale=100.0)",
        summary="Margin and scale tuned for CosFace, as fairly as for the others.",
        paper=_REALITY_CHECK,
        source=_TUNED,
        notes=(
            "On Cars196 they are 0.4324 and 161.5, on SOP 0.3364 and 100.",
            "The rate of the class vectors is 7.41e-3 on Cars196 and 2.16e-3 on SOP.",
        ),
        settings={"optimizer": {"criterion_lr": 2.53e-3}},
    ),
    RecipeSpec(
        name="reality_check_arcface",
        recipe="arcface(margin=0.4053, scale=100.0)",
        summary="Margin and scale tuned for ArcFace, as fairly as for the others.",
        paper=_REALITY_CHECK,
        source=_TUNED,
        notes=(
            "The margin is 23.22 degrees there; on Cars196 20.52 degrees and a scale of 49.5, on SOP 18.63 and 220.3.",
            "The rate of the class vectors is 7.39e-6 on Cars196 and 2.01e-3 on SOP.",
        ),
        settings={"optimizer": {"criterion_lr": 5.13e-3}},
    ),
)
