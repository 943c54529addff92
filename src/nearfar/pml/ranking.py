"""Losses on how the whole batch ranks: average precision, histograms, lists."""

from __future__ import annotations

from nearfar.pml.failures import EMPTY, LP_BFLOAT16, NO_BIN, PRODUCT_IN_HALF, SQUARED_DISTANCE, VALUE_IN_HALF, failing
from nearfar.pml.names import COSINE, DOT, LP, MEAN, SNR, SQUARED, TUPLES, WEIGHTS, named
from nearfar.spec import Defect, LossSpec, Paper

_CLASSES_FOR_SAMPLES = (
    "The number of samples a class is taken for the number of classes: the value is wrong unless the two are equal."
)
_FLOAT16 = "Embeddings in float16 give a gradient of NaN."
_LAST_BIN = "A pair with a cosine of 1, such as a duplicate, falls beyond the last bin: index out of bounds."
_FREE = "A negative at distance 0 costs nothing: the hardest negative there is goes free."

LOSSES = (
    LossSpec(
        **named("losses.fast_ap_loss:FastAPLoss"),
        summary="FastAP: average precision from soft histograms of distances.",
        family="ranking",
        paper=Paper(
            authors="Cakir, He, Xia, Kulis, Sclaroff",
            title="Deep Metric Learning to Rank",
            year=2019,
            venue="CVPR 2019",
        ),
        accepts=WEIGHTS,
        distances=(LP,),
        default_distance=LP,
        default_reducer=MEAN,
        deviations=(SQUARED,),
        expected_failures=SQUARED_DISTANCE | LP_BFLOAT16,
    ),
    LossSpec(
        **named("losses.smooth_ap:SmoothAPLoss"),
        summary="Smooth-AP: average precision with ranks made of sigmoids.",
        family="ranking",
        paper=Paper(
            authors="Brown, Xie, Kalogeiton, Zisserman",
            title="Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval",
            year=2020,
            arxiv="2007.12163",
        ),
        accepts=WEIGHTS,
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer=MEAN,
        order_dependent=True,
        deviations=("Every class of a batch must have the same number of samples, one class after the other.",),
        defects=(
            _CLASSES_FOR_SAMPLES,
            "A batch whose samples are not in the order of their classes is accepted and gives a wrong value.",
            Defect(
                says="With an embedding_regularizer the reducer asked for becomes the mean without a word.",
                argument="embedding_regularizer",
            ),
        ),
        expected_failures=failing(_CLASSES_FOR_SAMPLES, "clustering", "permutation")
        | failing(
            "Classes are counted by bincount, whose error names no labels.",
            "labels[negative]",
            "labels[huge]",
            "labels[floating]",
        )
        | failing(
            "It is computed in torch's default dtype, float32, whatever the embeddings are in.",
            "gradient",
            "default_dtype",
        ),
    ),
    LossSpec(
        **named("losses.pnp_loss:PNPLoss"),
        summary="PNP: only penalises negatives that rank before positives.",
        family="ranking",
        paper=Paper(
            authors="Li et al.",
            title="Rethinking the Optimization of Average Precision: Only Penalizing Negative Instances before "
            "Positive Ones is Enough",
            year=2021,
            arxiv="2102.04640",
        ),
        emits=("already_reduced",),
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer="",
        defects=(_FLOAT16,),
        expected_failures=VALUE_IN_HALF | failing(_FLOAT16, "half[float16]"),
    ),
    LossSpec(
        **named("losses.histogram_loss:HistogramLoss"),
        summary="Histogram loss: the probability that a random negative pair is more similar than a positive one.",
        family="ranking",
        paper=Paper(
            authors="Ustinova, Lempitsky",
            title="Learning Deep Embeddings with Histogram Loss",
            year=2016,
            arxiv="1611.00822",
        ),
        accepts=TUPLES,
        emits=("already_reduced",),
        distances=("core.cosine", COSINE, DOT),
        default_distance=COSINE,
        default_reducer="",
        defects=(_LAST_BIN,),
        expected_failures=PRODUCT_IN_HALF
        | NO_BIN
        | failing(_LAST_BIN, "clustering", "extremes[duplicates]", "extremes[opposite]")
        | failing(
            "Where the bins are is told in torch's default dtype, float32, of embeddings in float64.", "default_dtype"
        ),
    ),
    LossSpec(
        **named("losses.ranked_list_loss:RankedListLoss"),
        example="margin=0.4, Tn=5",
        summary="Ranked list: positives within alpha − margin, negatives beyond alpha, weighted by hardness.",
        family="ranking",
        paper=Paper(
            authors="Wang, Hua, Kodirov, Hu, Garnier, Robertson",
            title="Ranked List Loss for Deep Metric Learning",
            year=2019,
            arxiv="1903.03238",
        ),
        distances=("core.euclidean", "core.squared_euclidean", LP, SNR),
        default_distance=LP,
        default_reducer=MEAN,
        thresholds={"alpha": "negative"},
        deviations=(
            "The weights of the pairs are not detached, so they enter the gradient; in the paper they only scale it.",
            "1e-5 is added to each weight rather than to their sum.",
        ),
        defects=(
            _FREE,
            Defect(
                says="A similarity is read as a distance, so it would push positives apart.",
                argument="distance",
                shows=("cosine", "dot", "cosine_similarity", "dot_product_similarity"),
            ),
        ),
        expected_failures=EMPTY | LP_BFLOAT16 | VALUE_IN_HALF | failing(_FREE, "clustering"),
    ),
)
