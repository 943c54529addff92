"""What the plugin says of its losses."""

from __future__ import annotations

from typing import Any

from nearfar.spec import LossSpec, Paper, Preset
from nearfar_pair.papers import HADSELL, HERMANS, KHOSLA, SCHROFF, WANG_2019

__all__ = ["LOSSES"]

NORMALIZED = "Embeddings are normalised by the default distance; the paper's are not."
COSINE = ("core.cosine",)


def _loss(name: str, made_by: str, summary: str, paper: Paper, **fields: Any) -> LossSpec:
    """The spec of a loss in the module of its name: one on any distance, with selections and a reference set."""
    common: dict[str, Any] = {
        "accepts": ("pairs", "triplets"),
        "reference": True,
        "distances": ("*",),
        "default_distance": "core.cosine",
        "definition": f"nearfar_pair.loss_definitions:{name}",
        "memory": 2,
        "synchronizations": 0,
    }
    target = f"nearfar_pair.losses.{name}:{made_by}"
    return LossSpec(name=name, target=target, summary=summary, paper=paper, **common | fields)


def _paper(authors: str, title: str, year: int, where: str) -> Paper:
    """A paper on arXiv, where that is the place it has, or at a venue."""
    return Paper(authors=authors, title=title, year=year, **{"arxiv" if where[:4].isdigit() else "venue": where})


LOSSES = (
    _loss(
        "contrastive",
        "Contrastive",
        "Positive pairs within one distance, negative pairs beyond another.",
        HADSELL,
        schedulable=("pos_margin", "neg_margin"),
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
            )
        },
        emits=("pos_pair", "neg_pair"),
        default_distance="core.euclidean",
        default_reducer="core.avg_non_zero",
        thresholds={"pos_margin": "positive", "neg_margin": "negative"},
        optimum=0.0,
    ),
    LossSpec(
        name="triplet",
        target="nearfar_pair.losses.triplet:Triplet",
        summary="A negative farther from the anchor than a positive, by a margin.",
        schedulable=("margin",),
        family="triplet",
        paper=SCHROFF,
        deviations=(
            "The default distance is not squared, FaceNet's is: triplet(margin=0.2, distance=squared_euclidean).",
            "Averaged over the triplets that cost something; the paper sums.",
        ),
        presets={
            "facenet": Preset(
                arguments={"margin": 0.2},
                source="Schroff et al. (2015), section 3; the margin is on squared distances: "
                'triplet(preset="facenet", distance=squared_euclidean, miner=semihard)',
            ),
            "hermans_2017": Preset(
                arguments={"margin": 0.0, "smooth": True},
                source="Hermans et al. (2017), the soft margin; on embeddings as they are: "
                'triplet(preset="hermans_2017", distance=euclidean(normalize=False), miner=batch_hard)',
            ),
        },
        accepts=("triplets", "pairs"),
        emits=("triplet",),
        reference=True,
        distances=("*",),
        default_distance="core.euclidean",
        default_reducer="core.avg_non_zero",
        definition="nearfar_pair.loss_definitions:triplet",
        memory=2,
        synchronizations=1,
        optimum=0.0,
    ),
    _loss(
        "sup_con",
        "SupCon",
        "Cross-entropy of each anchor's positives among all others of the batch.",
        KHOSLA,
        schedulable=("temperature",),
        family="contrastive",
        aliases=("supcon",),
        deviations=(
            "Without the factor temperature / base temperature of the reference code, 1 in its experiments.",
            "Anchors without a positive are left out of the mean; the paper's two views leave none.",
        ),
    ),
    _loss(
        "nt_xent",
        "NTXent",
        "Cross-entropy of each positive pair against the anchor's other pairs.",
        _paper(
            "Chen, Kornblith, Norouzi, Hinton",
            "A Simple Framework for Contrastive Learning of Visual Representations",
            2020,
            "2002.05709",
        ),
        schedulable=("temperature",),
        family="contrastive",
        deviations=(
            "SimCLR has one positive an anchor. With several, each stands against the negatives alone, and by "
            'others="all" against the other positives too.',
        ),
        presets={
            "simclr_cifar10": Preset(arguments={"temperature": 0.5}, source="Chen et al. (2020), section B.9, CIFAR-10")
        },
        emits=("pos_pair",),
    ),
    _loss(
        "info_nce",
        "InfoNCE",
        "Cross-entropy of an anchor's positives together against all others.",
        _paper(
            "van den Oord, Li, Vinyals",
            "Representation Learning with Contrastive Predictive Coding",
            2018,
            "1807.03748",
        ),
        family="contrastive",
        deviations=("The paper has one positive an anchor; with several their sum stands inside the logarithm.",),
        presets={
            "clip": Preset(
                arguments={"temperature": 0.07, "learned": True},
                source="Radford et al. (2021), arXiv:2103.00020, section 2.5; one direction of its two",
            )
        },
    ),
    _loss(
        "decoupled_contrastive",
        "DecoupledContrastive",
        "The cross-entropy of a positive pair without the positive in its denominator.",
        _paper("Yeh, Hong, Hsu, Liu, Chen, LeCun", "Decoupled Contrastive Learning", 2021, "2110.06848"),
        schedulable=("temperature",),
        family="contrastive",
        aliases=("dcl",),
        deviations=("The paper's second form, DCLW, which weighs positive pairs, is not here.",),
        emits=("pos_pair",),
    ),
    _loss(
        "siglip",
        "SigLIP",
        "Each pair on its own decided by a logistic regression: positive or negative.",
        _paper("Zhai, Mustafa, Kolesnikov, Beyer", "Sigmoid Loss for Language Image Pre-Training", 2023, "2303.15343"),
        family="contrastive",
        deviations=("A sample may have any number of positives; the paper's texts have one image each.",),
        emits=("pos_pair", "neg_pair"),
    ),
    _loss(
        "n_pair",
        "NPair",
        "A positive whose inner product with the anchor is above those of all negatives, and embeddings kept short.",
        _paper("Sohn", "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", 2016, "NeurIPS"),
        schedulable=("l2_weight",),
        family="contrastive",
        deviations=(
            "Every sample is an anchor, with all its positives and negatives; the paper's batch has one pair a class, "
            "which anchors as embeddings and positives as references give.",
            "The weight of the lengths, which the paper does not give, is that of TensorFlow's npairs_loss, without "
            "the quarter it is multiplied with there.",
        ),
        emits=("pos_pair", "element"),
        default_distance="core.dot",
        uses_norm=True,
        synchronizations=1,
    ),
    _loss(
        "generalized_lifted",
        "GeneralizedLifted",
        "All positives of an anchor nearer than all its negatives, as smooth maxima.",
        HERMANS,
        schedulable=("margin",),
        family="lifted",
        deviations=(NORMALIZED, "The paper gives no margin; 1 is pytorch-metric-learning's."),
        default_distance="core.euclidean",
    ),
    _loss(
        "ranked_list",
        "RankedList",
        "Positives within one distance, negatives beyond another, the worst of each anchor's list weighing most.",
        _paper(
            "Wang, Hua, Kodirov, Hu, Garnier, Robertson",
            "Ranked List Loss for Deep Metric Learning",
            2019,
            "1903.03238",
        ),
        schedulable=("margin", "alpha", "negative_temperature", "positive_temperature", "balance"),
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
    _loss(
        "multi_similarity",
        "MultiSimilarity",
        "Pairs weighed by how similar they are, and how much more so than the other pairs of their anchor.",
        WANG_2019,
        schedulable=("alpha", "beta", "base"),
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
    _loss(
        "circle",
        "Circle",
        "Similarities drawn to their optimum, the farther from it the harder.",
        _paper(
            "Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei",
            "Circle Loss: A Unified Perspective of Pair Similarity Optimization",
            2020,
            "2002.10857",
        ),
        schedulable=("margin", "scale"),
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
    _loss(
        "tuplet_margin",
        "TupletMargin",
        "A positive nearer in angle than all negatives at once, the hardest of which count most.",
        _paper("Yu, Tao", "Deep Metric Learning with Tuplet Margin Loss", 2019, "ICCV"),
        schedulable=("margin", "scale"),
        family="contrastive",
        deviations=(
            "An angle below the slack counts as the slack; by the paper's cos(θ − β) near positives are pushed away.",
        ),
        emits=("pos_pair",),
        distances=COSINE,
    ),
    _loss(
        "margin_beta",
        "MarginBeta",
        "Positive pairs nearer than a learned boundary and negative pairs beyond it, both by a margin.",
        _paper("Wu, Manmatha, Smola, Krähenbühl", "Sampling Matters in Deep Embedding Learning", 2017, "1706.07567"),
        schedulable=("margin", "nu"),
        family="contrastive",
        deviations=("The paper also has a boundary for each image, which its code does not.",),
        emits=("pos_pair", "neg_pair"),
        default_distance="core.euclidean",
        thresholds={"beta": "negative"},
    ),
    _loss(
        "nca",
        "NCA",
        "The chance that an anchor, choosing a neighbour at random, chooses one of its class.",
        _paper("Goldberger, Roweis, Hinton, Salakhutdinov", "Neighbourhood Components Analysis", 2004, "NeurIPS"),
        schedulable=("scale",),
        family="neighbours",
        deviations=(
            NORMALIZED,
            "Distances are multiplied with a scale; the paper has none, which is a scale of 1.",
        ),
        default_distance="core.squared_euclidean",
    ),
    _loss(
        "threshold_consistent_margin",
        "ThresholdConsistentMargin",
        "The pairs on the wrong side of two cosines, the same for all classes, drawn to their side.",
        _paper(
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
    _loss(
        "smooth_ap",
        "SmoothAP",
        "One minus the average precision of each anchor's list, its ranks counted by a sigmoid.",
        _paper(
            "Brown, Xie, Kalogeiton, Zisserman",
            "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval",
            2020,
            "2007.12163",
        ),
        schedulable=("temperature",),
        family="ranking",
        deviations=("Classes may be of any sizes and in any order; the authors' code wants equal ones, sorted.",),
        synchronizations=1,
    ),
    _loss(
        "recall_at_k",
        "RecallAtK",
        "One minus the share of an anchor's positives among its k nearest, both counted by sigmoids.",
        _paper(
            "Patel, Tolias, Matas",
            "Recall@k Surrogate Loss with Large Batches and Similarity Mixup",
            2022,
            "2108.11179",
        ),
        schedulable=("rank_temperature", "temperature"),
        family="ranking",
        deviations=(
            "The share is of min(k, positives); the paper's is of the positives, so that recall at k below their "
            "number cannot reach 1.",
            "The paper's mixup of similarities is not part of it.",
        ),
        synchronizations=1,
    ),
    _loss(
        "pnp",
        "PNP",
        "The negatives that stand before each positive of an anchor's list, counted by a sigmoid.",
        _paper(
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
    _loss(
        "fast_ap",
        "FastAP",
        "One minus the average precision of each anchor's list, from histograms of its distances.",
        _paper("Cakir, He, Xia, Kulis, Sclaroff", "Deep Metric Learning to Rank", 2019, "CVPR"),
        family="ranking",
        distances=("core.squared_euclidean",),
        default_distance="core.squared_euclidean",
    ),
    _loss(
        "lifted_structure",
        "LiftedStructure",
        "Each positive pair against the negatives of both its ends.",
        _paper(
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
    _loss(
        "snr_contrastive",
        "SNRContrastive",
        "Positive pairs of little noise for the anchor's signal, negative pairs of much.",
        _paper(
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
    _loss(
        "intra_pair_variance",
        "IntraPairVariance",
        "Positive pairs no less similar than positive pairs are on average, negative ones no more than negative ones.",
        _paper("Yu, Tao", "Deep Metric Learning with Tuplet Margin Loss", 2019, "ICCV"),
        schedulable=("pos_epsilon", "neg_epsilon"),
        family="contrastive",
        emits=("pos_pair", "neg_pair"),
        distances=COSINE,
        collapses="It narrows the distributions of similarities; the loss it is added to moves them apart.",
        optimum=0.0,
    ),
    _loss(
        "histogram",
        "Histogram",
        "The chance that a negative pair is more similar than a positive one, from their histograms.",
        _paper("Ustinova, Lempitsky", "Learning Deep Embeddings with Histogram Loss", 2016, "1611.00822"),
        family="ranking",
        emits=("neg_pair",),
        distances=COSINE,
        optimum=0.0,
    ),
    _loss(
        "hinge_pair",
        "HingePair",
        "Every negative less similar than each positive, by a margin; all that are not add up.",
        _paper(
            "Frome, Corrado, Shlens, Bengio, Dean, Ranzato, Mikolov",
            "DeViSE: A Deep Visual-Semantic Embedding Model",
            2013,
            "NeurIPS",
        ),
        schedulable=("margin",),
        family="triplet",
        deviations=("An anchor may have several positives, over which the mean is taken; the paper's has one.",),
        synchronizations=1,
        optimum=0.0,
    ),
    _loss(
        "arcface_triplet",
        "ArcFaceTriplet",
        "A negative at a larger angle to the anchor than a positive, by a margin.",
        _paper(
            "Deng, Guo, Yang, Xue, Kotsia, Zafeiriou",
            "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
            2019,
            "1801.07698",
        ),
        schedulable=("margin",),
        family="triplet",
        deviations=("The paper gives no margin for its triplets; the default is that of its softmax.",),
        emits=("triplet",),
        distances=COSINE,
        default_reducer="core.avg_non_zero",
        synchronizations=1,
        optimum=0.0,
    ),
    _loss(
        "angular",
        "Angular",
        "The angle at each negative, of the triangle that it forms with a positive pair, below a bound.",
        _paper("Wang, Zhou, Wen, Liu, Lin", "Deep Metric Learning with Angular Loss", 2017, "1708.01682"),
        schedulable=("angle",),
        family="contrastive",
        deviations=("The paper adds it to the N-pair loss: n_pair + 2 * angular.",),
        emits=("pos_pair",),
        distances=(),
        default_distance="",
        synchronizations=3,
    ),
)
