"""Losses that compare embeddings with learned proxies."""

from __future__ import annotations

from nearfar.pml.failures import (
    CAST,
    CLASSES,
    EMPTY,
    LP_BFLOAT16,
    PRODUCT_IN_HALF,
    SQUARED_DISTANCE,
    SUMMED_IN_HALF,
    failing,
)
from nearfar.pml.names import ANY, CASTS_WEIGHTS, COSINE, DIVISOR, DOT, LP, MEAN, SQUARED, WEIGHTS, named
from nearfar.spec import Defect, LossSpec, Paper

_NEEDS = ("num_classes", "embedding_size")
#: As in the authors' code of Proxy-Anchor (--lr 1e-4, proxies at 100 times that) and of SoftTriple (--modellr 1e-4,
#: --centerlr 1e-2).
_PROXY_RATE = 100.0
_UNKNOWN_LABEL = "A sample whose label no proxy has is left out without a word; a batch of none but such gives NaN."
_PROXIES_AS_ELEMENTS = (
    "class_weighted_reducer reads its elements, which are proxies, as samples of the batch: IndexError with more "
    "classes than samples, wrong weights otherwise."
)
_SMALL_BATCH = "A batch smaller than K, 50 by default, raises 'negative dimension'."

LOSSES = (
    LossSpec(
        **named("losses.proxy_losses:ProxyNCALoss"),
        summary="Proxy-NCA: softmax over negative squared distances to one proxy a class.",
        family="proxy",
        learning_rate=_PROXY_RATE,
        paper=Paper(
            authors="Movshovitz-Attias, Toshev, Leung, Ioffe, Singh",
            title="No Fuss Distance Metric Learning using Proxies",
            year=2017,
            arxiv="1703.07464",
        ),
        needs=_NEEDS,
        accepts=WEIGHTS,
        distances=ANY,
        default_distance=LP,
        default_reducer=MEAN,
        deviations=(
            "The denominator includes the positive proxy, as in Proxy-NCA++; the paper leaves it out.",
            "softmax_scale is 1, where tuned values lie between 8 and 14.",
            SQUARED,
        ),
        defects=(_UNKNOWN_LABEL, CASTS_WEIGHTS),
        expected_failures=CAST
        | EMPTY
        | LP_BFLOAT16
        | SQUARED_DISTANCE
        | failing(_UNKNOWN_LABEL, "labels[negative]", "labels[huge]", "labels[floating]", "labels[out_of_range]")
        | failing("The labels of the proxies are neither a parameter nor a buffer; each call moves them.", "device"),
    ),
    LossSpec(
        **named("losses.proxy_anchor_loss:ProxyAnchorLoss"),
        summary="Proxy Anchor: each proxy is an anchor for all embeddings of the batch.",
        family="proxy",
        learning_rate=_PROXY_RATE,
        paper=Paper(
            authors="Kim, Kim, Cho, Kwak",
            title="Proxy Anchor Loss for Deep Metric Learning",
            year=2020,
            arxiv="2003.13911",
        ),
        needs=_NEEDS,
        accepts=WEIGHTS,
        distances=ANY,
        default_distance=COSINE,
        default_reducer=DIVISOR,
        deviations=(
            "A miner's weights w enter as + (w − 1) in the exponent, so a sample that the miner left out keeps "
            "a factor of e⁻¹ rather than 0.",
        ),
        defects=(
            Defect(says=_PROXIES_AS_ELEMENTS, argument="reducer", shows=("class_weighted_reducer",)),
            CASTS_WEIGHTS,
        ),
        expected_failures=CLASSES | SUMMED_IN_HALF | failing(_PROXIES_AS_ELEMENTS, "emits", "pml_reducers"),
    ),
    LossSpec(
        **named("losses.soft_triple_loss:SoftTripleLoss"),
        summary="SoftTriple: softmax over a soft assignment to several centres a class.",
        family="proxy",
        learning_rate=_PROXY_RATE,
        paper=Paper(
            authors="Qian, Shang, Sun, Hu, Li, Jin",
            title="SoftTriple Loss: Deep Metric Learning Without Triplet Sampling",
            year=2019,
            arxiv="1909.05235",
        ),
        needs=_NEEDS,
        accepts=WEIGHTS,
        distances=("core.cosine", "core.dot", COSINE, DOT),
        default_distance=COSINE,
        default_reducer=MEAN,
        deviations=(
            "The regulariser that merges centres is left out unless a SparseCentersRegularizer is given as "
            "weight_regularizer.",
        ),
        defects=(CASTS_WEIGHTS,),
        expected_failures=CLASSES | EMPTY,
    ),
    LossSpec(
        **named("losses.manifold_loss:ManifoldLoss"),
        example="l=8, K=4",
        summary="Manifold similarity to hard proxies by a random walk over the batch; takes no labels.",
        family="proxy",
        learning_rate=_PROXY_RATE,
        paper=Paper(
            authors="Aziere, Todorovic",
            title="Ensemble Deep Manifold Similarity Learning Using Hard Proxies",
            year=2019,
            venue="CVPR 2019",
        ),
        inputs=("embeddings",),
        emits=("already_reduced",),
        distances=("core.cosine", COSINE, DOT),
        default_distance=COSINE,
        default_reducer="",
        random=True,
        deviations=(
            "The argument indices_tuple means the proxy of each sample, not a miner's choice; without it proxies "
            "are assigned at random in every call.",
            "The size of the embeddings is called l.",
        ),
        defects=(_SMALL_BATCH,),
        expected_failures=PRODUCT_IN_HALF
        | failing(_SMALL_BATCH, "batches[empty]", "batches[one_row]")
        | failing(
            "A matrix is inverted in float32 whatever the embeddings are in, and its rounding hides small differences.",
            "gradient",
        ),
    ),
)
