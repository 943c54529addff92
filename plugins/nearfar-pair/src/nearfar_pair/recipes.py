"""Pair and triplet losses as they are used, as recipes; those with a classifier need nearfar-margin beside."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.spec import Paper

__all__ = ["RECIPES"]

RECIPES = (
    RecipeSpec(
        name="facenet",
        recipe="triplet(margin=0.2, distance=squared_euclidean, miner=semihard)",
        summary="Triplets on squared distances whose negative is farther than the positive, but not by enough.",
        paper=Paper(
            authors="Schroff, Kalenichenko, Philbin",
            title="FaceNet: A Unified Embedding for Face Recognition and Clustering",
            year=2015,
            arxiv="1503.03832",
        ),
        source="the margin and the choice of negatives are the paper's, section 3",
        notes=("The paper draws a negative of those that are semi-hard; here all of them count.",),
    ),
    RecipeSpec(
        name="reid_baseline",
        recipe=(
            "softmax(label_smoothing=0.1) + triplet(margin=0.3, distance=euclidean(normalize=False), miner=batch_hard)"
        ),
        summary="A classifier beside batch-hard triplets, as re-identification is trained.",
        paper=Paper(
            authors="Luo, Gu, Liao, Lai, Jiang",
            title="Bag of Tricks and A Strong Baseline for Deep Person Re-identification",
            year=2019,
            arxiv="1903.07071",
        ),
        source="the margin, the smoothing and the weights are the paper's",
        notes=("The paper has a batch normalisation between what the triplets and what the classifier see.",),
    ),
    RecipeSpec(
        name="identification_verification",
        recipe="softmax + 0.05 * contrastive",
        summary="A classifier beside contrastive pairs.",
        paper=Paper(
            authors="Sun, Wang, Tang",
            title="Deep Learning Face Representation by Joint Identification-Verification",
            year=2014,
            arxiv="1406.4773",
        ),
        source="the paper finds its best results with 0.05",
        notes=("The paper's pairs are not normalised, and it adapts their margin while it trains.",),
    ),
)
