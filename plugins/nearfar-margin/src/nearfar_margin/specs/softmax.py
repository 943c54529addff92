"""Softmax without a margin."""

from __future__ import annotations

from nearfar.spec import Paper, Preset
from nearfar_margin.specs.shared import UNMINED, margin_loss

__all__ = ["SPECS"]

SPECS = (
    margin_loss(
        name="softmax",
        target="nearfar_margin.softmax:Softmax",
        summary="Cross entropy of a linear classifier on the embeddings, with label smoothing.",
        schedulable=("label_smoothing",),
        paper=Paper(
            authors="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna",
            title="Rethinking the Inception Architecture for Computer Vision",
            year=2016,
            arxiv="1512.00567",
        ),
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
    ),
    margin_loss(
        name="modified_softmax",
        target="nearfar_margin.modified_softmax:ModifiedSoftmax",
        summary="Softmax on unit class vectors without a bias; the lengths of the embeddings stay.",
        paper=Paper(
            authors="Liu, Wen, Yu, Li, Raj, Song",
            title="SphereFace: Deep Hypersphere Embedding for Face Recognition",
            year=2017,
            arxiv="1704.08063",
        ),
        uses_norm=True,
        deviations=(UNMINED,),
    ),
    margin_loss(
        name="norm_softmax",
        target="nearfar_margin.norm_softmax:NormSoftmax",
        summary="Softmax on scaled cosines, without a margin: NormFace, NSL.",
        schedulable=("scale",),
        paper=Paper(
            authors="Wang, Xiang, Cheng, Yuille",
            title="NormFace: L2 Hypersphere Embedding for Face Verification",
            year=2017,
            arxiv="1704.06369",
        ),
        aliases=("normface", "nsl"),
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
    ),
)
