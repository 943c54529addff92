"""Two views or modalities of the same samples: what the plugin says of these losses."""

from __future__ import annotations

from nearfar.spec import LossSpec
from nearfar_pair.loss_specs.shared import loss, published

__all__ = ["VIEW_LOSSES"]

VIEW_LOSSES: tuple[LossSpec, ...] = (
    loss(
        "vicreg",
        "VICReg",
        "Two views of each sample in one place, and no dimension of either idle or a copy of another.",
        published(
            "Bardes, Ponce, LeCun",
            "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
            2022,
            "2105.04906",
        ),
        family="self_supervised",
        deviations=(
            "The squared difference of two views is averaged over dimensions, as in the paper's algorithm 1, to which "
            "its weights belong; its equation 5 sums.",
        ),
        inputs=("embeddings", "ref_emb"),
        accepts=(),
        distances=(),
        default_distance="",
        uses_norm=True,
        memory=1,
    ),
    loss(
        "instance",
        "Instance",
        "Every instance a class of its own, told by one classifier in both views or modalities.",
        published(
            "Zheng, Zheng, Garrett, Yang, Xu, Shen",
            "Dual-Path Convolutional Image-Text Embeddings with Instance Loss",
            2020,
            "1711.05535",
        ),
        family="self_supervised",
        deviations=("The paper's ranking loss beside it, and its dropout before the classifier, are the caller's.",),
        needs=("num_classes", "embedding_size"),
        accepts=(),
        distances=(),
        default_distance="",
        uses_norm=True,
        memory=1,
    ),
)
