"""One cost for each pair: what the plugin says of these losses."""

from __future__ import annotations

from nearfar.spec import LossSpec, Preset
from nearfar_pair.loss_specs.shared import COSINE, loss, published
from nearfar_pair.papers import HADSELL

__all__ = ["PAIR_LOSSES"]

PAIR_LOSSES: tuple[LossSpec, ...] = (
    loss(
        "contrastive",
        "Contrastive",
        "Positive pairs within one distance, negative pairs beyond another.",
        HADSELL,
        graded=True,
        schedulable=("pos_margin", "neg_margin"),
        memory=1,
        family="contrastive",
        deviations=(
            "The factor 1/2 is left out: it only scales the loss.",
            "Positive and negative pairs are reduced apart and added, so that the many negative pairs do not "
            "drown the few positive ones; the paper sums over all pairs.",
            "Embeddings are normalised by the default distance, so that the margin has a scale.",
        ),
        presets={
            "pytorch_metric_learning": Preset(
                arguments={"hinge": "linear"}, source="ContrastiveLoss of pytorch-metric-learning 2.9"
            ),
            "generalized": Preset(
                arguments={"neg_margin": 0.5},
                source="Leyva-Vallina et al. (2021), arXiv:2103.06638, the authors' code; for labels with grades",
            ),
        },
        emits=("pos_pair", "neg_pair"),
        default_distance="core.euclidean",
        default_reducer="core.avg_non_zero",
        thresholds={"pos_margin": "positive", "neg_margin": "negative"},
        optimum=0.0,
    ),
    loss(
        "margin_beta",
        "MarginBeta",
        "Positive pairs nearer than a learned boundary and negative pairs beyond it, both by a margin.",
        published("Wu, Manmatha, Smola, Krähenbühl", "Sampling Matters in Deep Embedding Learning", 2017, "1706.07567"),
        schedulable=("margin", "nu"),
        memory=1,
        family="contrastive",
        deviations=("The paper also has a boundary for each image, which its code does not.",),
        emits=("pos_pair", "neg_pair"),
        default_distance="core.euclidean",
        thresholds={"beta": "negative"},
    ),
    loss(
        "siglip",
        "SigLIP",
        "Each pair on its own decided by a logistic regression: positive or negative.",
        published(
            "Zhai, Mustafa, Kolesnikov, Beyer", "Sigmoid Loss for Language Image Pre-Training", 2023, "2303.15343"
        ),
        family="contrastive",
        deviations=("A sample may have any number of positives; the paper's texts have one image each.",),
        emits=("pos_pair", "neg_pair"),
    ),
    loss(
        "threshold_consistent_margin",
        "ThresholdConsistentMargin",
        "The pairs on the wrong side of two cosines, the same for all classes, drawn to their side.",
        published(
            "Zhang, Xu, Tang, Fang, Wu, Tighe, Xing",
            "Threshold-Consistent Margin Loss for Open-World Deep Metric Learning",
            2024,
            "2307.04047",
        ),
        schedulable=("pos_margin", "neg_margin", "pos_weight", "neg_weight"),
        family="contrastive",
        emits=("pos_pair", "neg_pair"),
        distances=COSINE,
        default_reducer="core.avg_non_zero",
        optimum=0.0,
    ),
    loss(
        "snr_contrastive",
        "SNRContrastive",
        "Positive pairs of little noise for the anchor's signal, negative pairs of much.",
        published(
            "Yuan, Deng, Tang, Tang, Chen",
            "Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning",
            2019,
            "1904.02616",
        ),
        schedulable=("pos_margin", "neg_margin"),
        family="contrastive",
        deviations=(
            "Embeddings are normalised; the paper's are not.",
            "The paper's penalty on the means of embeddings is left out.",
        ),
        emits=("pos_pair", "neg_pair"),
        distances=(),
        default_distance="",
        default_reducer="core.avg_non_zero",
        optimum=0.0,
    ),
    loss(
        "intra_pair_variance",
        "IntraPairVariance",
        "Positive pairs no less similar than positive pairs are on average, negative ones no more than negative ones.",
        published("Yu, Tao", "Deep Metric Learning with Tuplet Margin Loss", 2019, "ICCV"),
        schedulable=("pos_epsilon", "neg_epsilon"),
        family="contrastive",
        emits=("pos_pair", "neg_pair"),
        distances=COSINE,
        collapses="It narrows the distributions of similarities; the loss it is added to moves them apart.",
        optimum=0.0,
    ),
    loss(
        "histogram",
        "Histogram",
        "The chance that a negative pair is more similar than a positive one, from their histograms.",
        published("Ustinova, Lempitsky", "Learning Deep Embeddings with Histogram Loss", 2016, "1611.00822"),
        family="ranking",
        emits=("neg_pair",),
        distances=COSINE,
        optimum=0.0,
    ),
)
