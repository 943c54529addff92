"""Ranked lists: what the plugin says of these losses."""

from __future__ import annotations

from nearfar.spec import LossSpec, Preset
from nearfar_pair.loss_specs.shared import loss, published

__all__ = ["RANKING_LOSSES"]

RANKING_LOSSES: tuple[LossSpec, ...] = (
    loss(
        "ranked_list",
        "RankedList",
        "Positives within one distance, negatives beyond another, the worst of each anchor's list weighing most.",
        published(
            "Wang, Hua, Kodirov, Hu, Garnier, Robertson",
            "Ranked List Loss for Deep Metric Learning",
            2019,
            "1903.03238",
        ),
        schedulable=("margin", "alpha", "negative_temperature", "positive_temperature", "balance"),
        memory=1,
        family="ranking",
        default_distance="core.euclidean",
        thresholds={"alpha": "negative"},
        detached="The weights are constants, so that the gradient depends on them alone, as the paper argues.",
        presets={
            "pytorch_metric_learning": Preset(
                arguments={"alpha": 1.2}, source="RankedListLoss(margin=0.4, Tn=10) of pytorch-metric-learning 2.9"
            )
        },
        optimum=0.0,
    ),
    loss(
        "smooth_ap",
        "SmoothAP",
        "One minus the average precision of each anchor's list, its ranks counted by a sigmoid.",
        published(
            "Brown, Xie, Kalogeiton, Zisserman",
            "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval",
            2020,
            "2007.12163",
        ),
        schedulable=("temperature",),
        graded=True,
        family="ranking",
        deviations=("Classes may be of any sizes and in any order; the authors' code wants equal ones, sorted.",),
        synchronizations=1,
    ),
    loss(
        "recall_at_k",
        "RecallAtK",
        "One minus the share of an anchor's positives among its k nearest, both counted by sigmoids.",
        published(
            "Patel, Tolias, Matas",
            "Recall@k Surrogate Loss with Large Batches and Similarity Mixup",
            2022,
            "2108.11179",
        ),
        schedulable=("temperature",),
        family="ranking",
        deviations=(
            "The share is of min(k, positives), as in the authors' code; the paper's is of the positives, so that "
            "recall at k below their number cannot reach 1.",
            "The count of positives is not cut off at k, as it is in the authors' code.",
            "The paper's mixup of similarities is not part of it.",
        ),
        synchronizations=1,
        presets={
            "official_code": Preset(
                arguments={"ks": (1, 2, 4, 8, 16), "rank_temperature": (1, 2, 4, 8, 16), "temperature": 0.01},
                source="the authors' code, yash0307/RecallatK_surrogate, its defaults without mixup",
            )
        },
    ),
    loss(
        "pnp",
        "PNP",
        "The negatives that stand before each positive of an anchor's list, counted by a sigmoid.",
        published(
            "Li, Min, Song, Zhu, Zhou, Zhou",
            "Rethinking the Optimization of Average Precision: Only Penalizing Negative Instances before Positive Ones "
            "is Enough",
            2022,
            "2102.04640",
        ),
        schedulable=("alpha", "b", "temperature"),
        family="ranking",
        deviations=(
            "An anchor is no positive of itself; in the authors' code it is, and its list always begins with one.",
        ),
        synchronizations=1,
        expected_failures={"arguments_matter[b]": "b is that of the variant Ib, which is not the default."},
    ),
    loss(
        "fast_ap",
        "FastAP",
        "One minus the average precision of each anchor's list, from histograms of its distances.",
        published("Cakir, He, Xia, Kulis, Sclaroff", "Deep Metric Learning to Rank", 2019, "CVPR"),
        family="ranking",
        distances=("core.squared_euclidean",),
        default_distance="core.squared_euclidean",
    ),
)
