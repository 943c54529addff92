"""Pair and triplet losses as they are used, as recipes; those with a classifier need nearfar-margin beside."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.spec import Paper
from nearfar_pair.papers import WANG_2019, WANG_2020

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
        name="multi_similarity_mined",
        recipe="multi_similarity(miner=multi_similarity(epsilon=0.1))",
        summary="Weighed pairs, after those were chosen that are harder than the easiest of the other sort.",
        paper=WANG_2019,
        source="the two steps are the paper's, sections 3 and 4; the margin of the choice is its 0.1",
    ),
    RecipeSpec(
        name="cross_batch_contrastive",
        recipe=(
            "cross_batch_memory(contrastive(pos_margin=1.0, neg_margin=0.5, hinge='linear', distance=cosine), "
            "size=8192)"
        ),
        summary="Contrastive pairs of the batch, and of the batch with a memory of earlier ones.",
        paper=WANG_2020,
        source="the authors' code: linear hinges of cosine similarity beyond 0.5, a memory of weight 1",
        notes=(
            "The authors' code compares with the memory from step 1000 on: warm_up=1000.",
            "It adds up the pairs of an anchor; here those that cost something are averaged.",
        ),
    ),
    RecipeSpec(
        name="clip",
        recipe="symmetric(info_nce(temperature=0.07, learned=True))",
        summary="Each image with its text against all others of the batch, and each text with its image.",
        paper=Paper(
            authors="Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell, Mishkin, Clark, Krueger, Sutskever",
            title="Learning Transferable Visual Models From Natural Language Supervision",
            year=2021,
            arxiv="2103.00020",
        ),
        source="the loss and the first temperature are the paper's, section 2.5",
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
