"""Margin softmax and other classification losses with a learned weight vector for each class."""

from __future__ import annotations

from nearfar.pml.failures import CAST, CLASSES, EMPTY, LABEL_DTYPE, LABEL_RANGE, NOT_ROWS, failing
from nearfar.pml.names import ANY, CASTS_WEIGHTS, COSINE, DOT, IGNORES_DISTANCE, MEAN, WEIGHTS, named
from nearfar.spec import Defect, LossSpec, Paper

_CLASSIFIER = ("num_classes", "embedding_size")
_DEGREES = "margin is in degrees (28.6), where the paper and other libraries give radians (0.5)."
_NO_ANNEALING = "No annealing of the margin, (λ cos θ + ψ) / (1 + λ), which the authors' code relies on to converge."
_INTEGER_MARGIN = "margin is cut to an integer without a word: 1.9 becomes 1, plain softmax."
_BY_KEYWORD = "num_classes and embedding_size must be given by keyword: by position they raise KeyError."
_ZEROS = "An embedding of zeros gives NaN: it is divided by its length."
_INFERENCE = (
    "After a first call under torch.inference_mode training fails: 'Inference tensors cannot be saved for backward'."
)
_CONSTANTS = failing(_INFERENCE, "without_gradient[inference_mode]") | failing(
    "The constants of the angle's polynomial are neither parameters nor buffers; each call moves them.", "device"
)

LOSSES = (
    LossSpec(
        **named("losses.arcface_loss:ArcFaceLoss"),
        summary="ArcFace: an additive margin on the angle to the target class.",
        family="margin",
        paper=Paper(
            authors="Deng, Guo, Xue, Zafeiriou",
            title="ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
            year=2019,
            arxiv="1801.07698",
        ),
        needs=_CLASSIFIER,
        accepts=WEIGHTS,
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer=MEAN,
        deviations=(_DEGREES,),
        defects=(CASTS_WEIGHTS,),
        expected_failures=CLASSES | EMPTY,
    ),
    LossSpec(
        **named("losses.subcenter_arcface_loss:SubCenterArcFaceLoss"),
        summary="Sub-center ArcFace: several centres a class, the nearest one counts.",
        family="margin",
        paper=Paper(
            authors="Deng, Guo, Liu, Gong, Zafeiriou",
            title="Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces",
            year=2020,
            venue="ECCV 2020",
        ),
        needs=_CLASSIFIER,
        accepts=WEIGHTS,
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer=MEAN,
        deviations=(_DEGREES,),
        defects=(
            _BY_KEYWORD,
            "get_outliers(return_dominant_centers=False) returns the dominant centres all the same.",
            CASTS_WEIGHTS,
        ),
        expected_failures=CLASSES | EMPTY | failing(_BY_KEYWORD, "signature"),
    ),
    LossSpec(
        **named("losses.cosface_loss:CosFaceLoss"),
        summary="CosFace: an additive margin on the cosine to the target class.",
        family="margin",
        paper=Paper(
            authors="Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu",
            title="CosFace: Large Margin Cosine Loss for Deep Face Recognition",
            year=2018,
            arxiv="1801.09414",
        ),
        needs=_CLASSIFIER,
        accepts=WEIGHTS,
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer=MEAN,
        defects=(CASTS_WEIGHTS,),
        expected_failures=CLASSES | EMPTY,
    ),
    LossSpec(
        **named("losses.sphereface_loss:SphereFaceLoss"),
        summary="SphereFace: a multiplicative margin on the angle, scaled by the length of the embedding.",
        family="margin",
        paper=Paper(
            authors="Liu, Wen, Yu, Li, Raj, Song",
            title="SphereFace: Deep Hypersphere Embedding for Face Recognition",
            year=2017,
            arxiv="1704.08063",
        ),
        needs=_CLASSIFIER,
        accepts=WEIGHTS,
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer=MEAN,
        uses_norm=True,
        deviations=(_NO_ANNEALING, _INTEGER_MARGIN),
        defects=(_INFERENCE, CASTS_WEIGHTS),
        expected_failures=CLASSES | EMPTY | _CONSTANTS,
    ),
    LossSpec(
        **named("losses.large_margin_softmax_loss:LargeMarginSoftmaxLoss"),
        summary="L-Softmax: a multiplicative margin on the angle, scaled by the lengths of embedding and weight.",
        family="margin",
        paper=Paper(
            authors="Liu, Wen, Yu, Yang",
            title="Large-Margin Softmax Loss for Convolutional Neural Networks",
            year=2016,
            arxiv="1612.02295",
        ),
        needs=_CLASSIFIER,
        accepts=WEIGHTS,
        distances=(COSINE,),
        default_distance=COSINE,
        default_reducer=MEAN,
        uses_norm=True,
        deviations=(
            _NO_ANNEALING,
            _INTEGER_MARGIN,
            "Weights start from N(0, 1), so their length, about √dim, multiplies the first logits.",
        ),
        defects=(_INFERENCE, CASTS_WEIGHTS),
        expected_failures=CLASSES | EMPTY | _CONSTANTS,
    ),
    LossSpec(
        **named("losses.normalized_softmax_loss:NormalizedSoftmaxLoss"),
        summary="Softmax over cosines to class weights, divided by a temperature.",
        family="margin",
        paper=Paper(
            authors="Zhai, Wu",
            title="Classification is a Strong Baseline for Deep Metric Learning",
            year=2018,
            arxiv="1811.12649",
        ),
        needs=_CLASSIFIER,
        accepts=WEIGHTS,
        distances=ANY,
        default_distance=DOT,
        default_reducer=MEAN,
        defects=(CASTS_WEIGHTS,),
        expected_failures=LABEL_RANGE | CAST | EMPTY | failing(LABEL_DTYPE, "labels[int32]", "labels[floating]"),
    ),
    LossSpec(
        **named("losses.p2s_grad_loss:P2SGradLoss"),
        # So many classes that in bfloat16 the weights of one at least have a length other than 1.
        example="descriptors_dim=8, num_classes=40",
        summary="P2SGrad: the squared error between cosines and one-hot labels.",
        family="margin",
        paper=Paper(
            authors="Zhang, Zhao, Yan, Gao, Qiao, Wang, Li",
            title="P2SGrad: Refined Gradients for Optimizing Deep Face Models",
            year=2019,
            arxiv="1905.02479",
        ),
        needs=("num_classes",),
        emits=("already_reduced",),
        default_reducer="",
        deviations=(
            "The squared error is averaged over samples and classes, where the paper sums over classes, so the "
            "gradient shrinks with the number of classes: from 0.053 with 4 to 0.0007 with 4000.",
            "The size of the embeddings is called descriptors_dim, and comes first.",
        ),
        defects=(_ZEROS, Defect(says=IGNORES_DISTANCE, argument="distance"), CASTS_WEIGHTS),
        expected_failures=LABEL_RANGE
        | CAST
        | EMPTY
        | failing(LABEL_DTYPE, "labels[uint8]", "labels[floating]")
        | failing(NOT_ROWS, "shapes[flat_embeddings]", "shapes[stacked_embeddings]")
        | failing(IGNORES_DISTANCE, "distance_honoured")
        | failing(_ZEROS, "extremes[zeros]")
        | failing(
            "Each call scales the weights to length 1 in place, where autograd does not see it, so their gradient "
            "keeps a part along them that does not change the value.",
            "gradient",
        )
        | failing(
            "Each call, in eval mode too, scales the weights to length 1 anew, which moves them by a rounding.",
            "evaluation",
        )
        | failing(
            "Weights in bfloat16 have a length of 1 to three digits, and it is asserted to five: AssertionError.",
            "half[bfloat16]",
            "autocast[bfloat16]",
        ),
    ),
)
