"""Losses over pairs of embeddings."""

from __future__ import annotations

from nearfar.pml.failures import (
    COLUMN_OF_ELEMENTS,
    COLUMNS,
    EMPTY,
    LP_BFLOAT16,
    NOT_ROWS,
    ONE_PAIR,
    PRODUCT_IN_HALF,
    REFERENCE_SIZE,
    SQUARED_DISTANCE,
    SUMMED_IN_HALF,
    VALUE_IN_HALF,
    failing,
)
from nearfar.pml.names import (
    ANY,
    AVG_NON_ZERO,
    BY_ANCHOR,
    COLUMN,
    COSINE,
    DOT,
    HERMANS,
    IGNORES_DISTANCE,
    LP,
    MEAN,
    MULTI_SIMILARITY,
    NO_VARIANCE,
    NORMALISES,
    SIGNAL_TO_NOISE,
    SINGLE_PAIR,
    SNR,
    SQUARED,
    TUPLES,
    TUPLET,
    WEIGHTS,
    named,
)
from nearfar.spec import Defect, LossSpec, Paper

_PAIRS = ("pos_pair", "neg_pair")
_THRESHOLDS = {"pos_margin": "positive", "neg_margin": "negative"}

_ARC_COSINE = "Duplicate positives can give NaN: the cosine rounds to just above 1 and its arc cosine is not clamped."
_TWO_SETS = (
    "With a reference set, as in cross_batch_memory, positions in the batch are compared with positions in the "
    "reference set, so the value depends on the order of the reference set."
)
_FLOOR = "In float16 6e-5 is added to each probability, so that no term is greater than 9.7."
_OWN_NEIGHBOUR = (
    "With a reference set that contains the batch, as in cross_batch_memory, each sample is its own nearest "
    "neighbour and the loss falls to 0."
)
_NO_POSITIVE = "A batch in which no sample has a positive gives NaN."
_CLASS_AS_POSITION = (
    "The index of a sample's class is used as the position of a sample in the batch, so collapsed embeddings cost "
    "less than perfect clusters."
)
_NO_REFERENCE = (
    "A reference set is ignored: its positions are looked up in the batch, which raises IndexError where it is larger."
)

LOSSES = (
    LossSpec(
        **named("losses.contrastive_loss:ContrastiveLoss"),
        summary="Positive pairs within pos_margin of each other, negative pairs at least neg_margin apart.",
        family="pair",
        paper=Paper(
            authors="Hadsell, Chopra, LeCun",
            title="Dimensionality Reduction by Learning an Invariant Mapping",
            year=2006,
            venue="CVPR 2006",
        ),
        accepts=TUPLES,
        emits=_PAIRS,
        reference=True,
        distances=ANY,
        default_distance=LP,
        default_reducer=AVG_NON_ZERO,
        thresholds=_THRESHOLDS,
        deviations=(
            "The hinge is linear, where the paper squares it: (m − d)². LpDistance(power=2) gives m − d², which is "
            "neither.",
            NORMALISES,
        ),
        defects=(SINGLE_PAIR,),
        expected_failures=ONE_PAIR | REFERENCE_SIZE | LP_BFLOAT16 | SUMMED_IN_HALF,
    ),
    LossSpec(
        **named("losses.signal_to_noise_ratio_losses:SignalToNoiseRatioContrastiveLoss"),
        summary="Contrastive loss on the ratio of the variances of noise and signal.",
        family="pair",
        paper=SIGNAL_TO_NOISE,
        accepts=TUPLES,
        emits=_PAIRS,
        reference=True,
        distances=(SNR,),
        default_distance=SNR,
        default_reducer=AVG_NON_ZERO,
        thresholds=_THRESHOLDS,
        deviations=(
            "The paper's zero-mean regulariser is left out unless ZeroMeanRegularizer is given as "
            "embedding_regularizer.",
            NORMALISES,
        ),
        defects=(NO_VARIANCE, SINGLE_PAIR),
        expected_failures=ONE_PAIR | REFERENCE_SIZE | SUMMED_IN_HALF | failing(NO_VARIANCE, "extremes[zeros]"),
    ),
    LossSpec(
        **named("losses.intra_pair_variance_loss:IntraPairVarianceLoss"),
        summary="Intra-pair variance: similarities of positive, and of negative, pairs close to their mean.",
        family="pair",
        paper=TUPLET,
        accepts=TUPLES,
        emits=_PAIRS,
        reference=True,
        distances=ANY,
        default_distance=COSINE,
        default_reducer=MEAN,
        collapses="It asks only that similarities be alike; the paper adds it to another loss.",
        defects=(SINGLE_PAIR,),
        expected_failures=ONE_PAIR | REFERENCE_SIZE | SUMMED_IN_HALF,
    ),
    LossSpec(
        **named("losses.tuplet_margin_loss:TupletMarginLoss"),
        summary="Tuplet margin: softmax of a positive with slack on its angle against all negatives.",
        family="pair",
        paper=TUPLET,
        accepts=TUPLES,
        emits=("pos_pair",),
        reference=True,
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer=MEAN,
        deviations=("margin is in degrees (5.73), where the paper gives radians (0.1).",),
        defects=(
            _ARC_COSINE,
            SINGLE_PAIR,
            Defect(says=COLUMN, argument="reducer", shows=BY_ANCHOR),
        ),
        expected_failures=ONE_PAIR
        | REFERENCE_SIZE
        | PRODUCT_IN_HALF
        | COLUMNS
        | failing(_ARC_COSINE, "extremes[duplicates]", "extremes[opposite]"),
    ),
    LossSpec(
        **named("losses.lifted_structure_loss:LiftedStructureLoss"),
        summary="Lifted structure: each positive pair against all negatives of both its ends.",
        family="pair",
        paper=Paper(
            authors="Oh Song, Xiang, Jegelka, Savarese",
            title="Deep Metric Learning via Lifted Structured Feature Embedding",
            year=2016,
            arxiv="1511.06452",
        ),
        accepts=TUPLES,
        emits=("pos_pair",),
        reference=True,
        distances=ANY,
        default_distance=LP,
        default_reducer=MEAN,
        deviations=("A positive pair without any negative still costs relu(d)² / 2.", NORMALISES),
        defects=(
            _TWO_SETS,
            SINGLE_PAIR,
            Defect(says=COLUMN, argument="reducer", shows=BY_ANCHOR),
        ),
        expected_failures=ONE_PAIR
        | REFERENCE_SIZE
        | LP_BFLOAT16
        | COLUMNS
        | failing(_TWO_SETS, "reference_permutation"),
    ),
    LossSpec(
        **named("losses.lifted_structure_loss:GeneralizedLiftedStructureLoss"),
        summary="Generalised lifted structure: all positives of an anchor against all its negatives.",
        family="pair",
        paper=HERMANS,
        accepts=TUPLES,
        reference=True,
        distances=ANY,
        default_distance=LP,
        default_reducer=MEAN,
        deviations=("An anchor without a positive costs relu of its negatives' term, where it should be skipped.",),
        defects=(SINGLE_PAIR,),
        expected_failures=COLUMN_OF_ELEMENTS | ONE_PAIR | REFERENCE_SIZE | LP_BFLOAT16,
    ),
    LossSpec(
        **named("losses.multi_similarity_loss:MultiSimilarityLoss"),
        summary="Multi-similarity: soft weighting of positive and negative pairs around a base similarity.",
        family="pair",
        paper=MULTI_SIMILARITY,
        accepts=TUPLES,
        reference=True,
        distances=ANY,
        default_distance=COSINE,
        default_reducer=MEAN,
        deviations=(
            "base is 0.5 as in the authors' code, where the paper has λ = 1; beta is 50 as in the paper, where the "
            "authors' code has 40.",
            "An anchor is kept when one of its mined sets is empty; the authors' code drops it.",
        ),
        defects=(SINGLE_PAIR,),
        expected_failures=COLUMN_OF_ELEMENTS | ONE_PAIR | REFERENCE_SIZE | PRODUCT_IN_HALF,
    ),
    LossSpec(
        **named("losses.circle_loss:CircleLoss"),
        summary="Circle loss: each similarity weighted by its distance from its own optimum.",
        family="pair",
        paper=Paper(
            authors="Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei",
            title="Circle Loss: A Unified Perspective of Pair Similarity Optimization",
            year=2020,
            arxiv="2002.10857",
        ),
        accepts=TUPLES,
        reference=True,
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer=AVG_NON_ZERO,
        detached="The weights of the pairs, α in the paper, are held constant, as it says.",
        defects=(SINGLE_PAIR,),
        expected_failures=COLUMN_OF_ELEMENTS | ONE_PAIR | REFERENCE_SIZE | PRODUCT_IN_HALF,
    ),
    LossSpec(
        **named("losses.ntxent_loss:NTXentLoss"),
        summary="NT-Xent, or InfoNCE: softmax of a positive against the negatives of its anchor.",
        family="pair",
        paper=Paper(
            authors="Chen, Kornblith, Norouzi, Hinton",
            title="A Simple Framework for Contrastive Learning of Visual Representations",
            year=2020,
            arxiv="2002.05709",
        ),
        accepts=TUPLES,
        emits=("pos_pair",),
        reference=True,
        distances=ANY,
        default_distance=COSINE,
        default_reducer=MEAN,
        deviations=(
            "The denominator holds one positive and the negatives; other positives are dropped, so it equals the "
            "paper's only with one positive an anchor.",
        ),
        defects=(_FLOOR, SINGLE_PAIR),
        expected_failures=ONE_PAIR | REFERENCE_SIZE | PRODUCT_IN_HALF | failing(_FLOOR, "half[float16]"),
    ),
    LossSpec(
        **named("losses.supcon_loss:SupConLoss"),
        summary="Supervised contrastive: mean log-softmax over all positives of an anchor.",
        family="pair",
        paper=Paper(
            authors="Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan",
            title="Supervised Contrastive Learning",
            year=2020,
            arxiv="2004.11362",
        ),
        accepts=TUPLES,
        reference=True,
        distances=ANY,
        default_distance=COSINE,
        default_reducer=AVG_NON_ZERO,
        deviations=("The factor temperature / base temperature of the authors' code is left out.",),
        defects=(SINGLE_PAIR,),
        expected_failures=ONE_PAIR | REFERENCE_SIZE | PRODUCT_IN_HALF,
    ),
    LossSpec(
        **named("losses.n_pairs_loss:NPairsLoss"),
        summary="N-pairs: one positive pair a class, each softmaxed against the positives of the others.",
        family="pair",
        paper=Paper(
            authors="Sohn",
            title="Improved Deep Metric Learning with Multi-class N-pair Loss Objective",
            year=2016,
            venue="NeurIPS 2016",
        ),
        accepts=TUPLES,
        distances=ANY,
        default_distance=DOT,
        default_reducer=MEAN,
        order_dependent=True,
        deviations=(
            "Embeddings are normalised by default and no temperature is applied, so even a perfect solution keeps a "
            "high loss (about 2.5 with 32 classes); the paper has the plain inner product and an L2 penalty.",
            "Only the first positive pair of each class is looked at; other samples and mined negatives do not count.",
        ),
        expected_failures=failing(
            "Of a selection the positives alone count, and the softmax over a single one is always 0.", "one_pair"
        ),
    ),
    LossSpec(
        **named("losses.nca_loss:NCALoss"),
        summary="Neighbourhood components analysis: the probability of a neighbour of the same class.",
        family="pair",
        paper=Paper(
            authors="Goldberger, Roweis, Hinton, Salakhutdinov",
            title="Neighbourhood Components Analysis",
            year=2004,
            venue="NeurIPS 2004",
        ),
        accepts=WEIGHTS,
        reference=True,
        distances=ANY,
        default_distance=LP,
        default_reducer=MEAN,
        deviations=(SQUARED,),
        defects=(
            _OWN_NEIGHBOUR,
            _NO_POSITIVE,
        ),
        expected_failures=REFERENCE_SIZE
        | LP_BFLOAT16
        | SQUARED_DISTANCE
        | failing(_OWN_NEIGHBOUR, "reference_is_batch")
        | failing(_NO_POSITIVE, "batches[no_positives]", "batches[empty_reference]", "batches[foreign_reference]"),
    ),
    LossSpec(
        **named("losses.instance_loss:InstanceLoss"),
        summary="Softmax over the similarities within a batch; not the instance loss of its paper.",
        family="pair",
        paper=Paper(
            authors="Zheng, Zheng, Garrett, Yang, Xu, Shen",
            title="Dual-Path Convolutional Image-Text Embeddings with Instance Loss",
            year=2020,
            arxiv="1711.05535",
        ),
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer=MEAN,
        order_dependent=True,
        deviations=("The paper classifies with a learned weight for each instance; there is none here.",),
        defects=(_CLASS_AS_POSITION,),
        expected_failures=EMPTY | failing(_CLASS_AS_POSITION, "clustering", "permutation", "relabelling"),
    ),
    LossSpec(
        **named("losses.tcm_loss:ThresholdConsistentMarginLoss"),
        summary="Threshold-consistent margin: hard positives above one similarity, hard negatives below another.",
        family="pair",
        paper=Paper(
            authors="Zhang et al.",
            title="Threshold-Consistent Margin Loss for Open-World Deep Metric Learning",
            year=2024,
            arxiv="2307.04047",
        ),
        accepts=TUPLES,
        emits=("already_reduced",),
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer="",
        thresholds={"margin_plus": "positive", "margin_minus": "negative"},
        defects=(
            _NO_REFERENCE,
            Defect(says=IGNORES_DISTANCE, argument="distance"),
        ),
        expected_failures=VALUE_IN_HALF
        | failing(_NO_REFERENCE, "reference_used")
        | failing(NOT_ROWS, "shapes[flat_embeddings]")
        | failing("Embeddings of three dimensions are taken without a word.", "shapes[stacked_embeddings]"),
    ),
)
