"""Smooth maxima and weights over an anchor's pairs: what the plugin says of these losses."""

from __future__ import annotations

from nearfar.spec import LossSpec, Preset
from nearfar_pair.loss_specs.shared import COSINE, NORMALIZED, loss, published
from nearfar_pair.papers import HERMANS, WANG_2019

__all__ = ["WEIGHTED_LOSSES"]

WEIGHTED_LOSSES: tuple[LossSpec, ...] = (
    loss(
        "multi_similarity",
        "MultiSimilarity",
        "Pairs weighed by how similar they are, and how much more so than the other pairs of their anchor.",
        WANG_2019,
        schedulable=("alpha", "beta", "base"),
        memory=1,
        family="weighted",
        deviations=(
            "The authors' code leaves out an anchor whose mined positives or negatives are none; the formula, and "
            "this, do not.",
        ),
        presets={
            "official_code": Preset(
                arguments={"alpha": 2.0, "beta": 40.0, "base": 0.5},
                source="the authors' code, MalongTech/research-ms-loss",
            ),
            "pytorch_metric_learning": Preset(
                arguments={"base": 0.5}, source="MultiSimilarityLoss of pytorch-metric-learning 2.9"
            ),
        },
    ),
    loss(
        "circle",
        "Circle",
        "Similarities drawn to their optimum, the farther from it the harder.",
        published(
            "Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei",
            "Circle Loss: A Unified Perspective of Pair Similarity Optimization",
            2020,
            "2002.10857",
        ),
        schedulable=("margin", "scale"),
        memory=1,
        family="weighted",
        deviations=("Anchors without a positive or without a negative are left out.",),
        presets={
            "face": Preset(
                arguments={"margin": 0.25, "scale": 256.0}, source="Sun et al. (2020), section 4.1, face recognition"
            ),
            "person": Preset(
                arguments={"margin": 0.25, "scale": 128.0},
                source="Sun et al. (2020), section 4.1, person re-identification",
            ),
        },
        distances=COSINE,
        detached="The weights of the similarities are constants, as the gradient in the paper has them.",
    ),
    loss(
        "generalized_lifted",
        "GeneralizedLifted",
        "All positives of an anchor nearer than all its negatives, as smooth maxima.",
        HERMANS,
        schedulable=("margin",),
        memory=1,
        family="lifted",
        deviations=(NORMALIZED, "The paper gives no margin; 1 is pytorch-metric-learning's."),
        default_distance="core.euclidean",
    ),
    loss(
        "lifted_structure",
        "LiftedStructure",
        "Each positive pair against the negatives of both its ends.",
        published(
            "Oh Song, Xiang, Jegelka, Savarese",
            "Deep Metric Learning via Lifted Structured Feature Embedding",
            2016,
            "1511.06452",
        ),
        schedulable=("margin",),
        family="lifted",
        deviations=(
            NORMALIZED,
            "With a reference set the negatives of the reference's end are embeddings of the batch.",
            "A positive pair of whose ends neither has a negative is left out.",
        ),
        emits=("pos_pair",),
        default_distance="core.euclidean",
    ),
    loss(
        "angular",
        "Angular",
        "The angle at each negative, of the triangle that it forms with a positive pair, below a bound.",
        published("Wang, Zhou, Wen, Liu, Lin", "Deep Metric Learning with Angular Loss", 2017, "1708.01682"),
        schedulable=("angle",),
        family="contrastive",
        deviations=("The paper adds it to the N-pair loss: n_pair + 2 * angular.",),
        emits=("pos_pair",),
        distances=(),
        default_distance="",
        synchronizations=None,
    ),
    loss(
        "dynamic_soft_margin",
        "DynamicSoftMargin",
        "A positive nearer than the hardest negative, weighed by how hard that is among all there have been.",
        published(
            "Zhang, Rusinkiewicz",
            "Learning Local Descriptors with a CDF-Based Dynamic Soft Margin",
            2019,
            "ICCV",
        ),
        family="weighted",
        deviations=(
            "Negatives however near count; the authors' code takes those nearer than 0.008 for the same patch.",
            "A sample may have any number of positives; the paper's patches have one each.",
        ),
        emits=("pos_pair",),
        distances=("core.euclidean",),
        default_distance="core.euclidean",
        detached="The weights, shares of the histogram, are constants.",
        expected_failures={
            "arguments_matter[momentum]": "The first batch becomes the histogram; the momentum says how much later "
            "ones make of it."
        },
    ),
)
