"""Where the losses and miners were published."""

from __future__ import annotations

from nearfar.spec import Paper

HADSELL = Paper(
    authors="Hadsell, Chopra, LeCun",
    title="Dimensionality Reduction by Learning an Invariant Mapping",
    year=2006,
    venue="CVPR",
)
SCHROFF = Paper(
    authors="Schroff, Kalenichenko, Philbin",
    title="FaceNet: A Unified Embedding for Face Recognition and Clustering",
    year=2015,
    arxiv="1503.03832",
)
HERMANS = Paper(
    authors="Hermans, Beyer, Leibe",
    title="In Defense of the Triplet Loss for Person Re-Identification",
    year=2017,
    arxiv="1703.07737",
)
KHOSLA = Paper(
    authors="Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan",
    title="Supervised Contrastive Learning",
    year=2020,
    arxiv="2004.11362",
)
WANG_2019 = Paper(
    authors="Wang, Han, Huang, Dong, Scott",
    title="Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning",
    year=2019,
    arxiv="1904.06627",
)
WANG_2020 = Paper(
    authors="Wang, Zhang, Huang, Scott",
    title="Cross-Batch Memory for Embedding Learning",
    year=2020,
    arxiv="1912.06798",
)
YUAN_2017 = Paper(
    authors="Yuan, Yang, Zhang",
    title="Hard-Aware Deeply Cascaded Embedding",
    year=2017,
    arxiv="1611.05720",
)
XUAN = Paper(
    authors="Xuan, Stylianou, Pless",
    title="Improved Embeddings with Easy Positive Triplet Mining",
    year=2020,
    arxiv="1904.04370",
)
WANG_ANGULAR = Paper(
    authors="Wang, Zhou, Wen, Liu, Lin",
    title="Deep Metric Learning with Angular Loss",
    year=2017,
    arxiv="1708.01682",
)
KIM_2019 = Paper(
    authors="Kim, Seo, Laptev, Cho, Kwak",
    title="Deep Metric Learning Beyond Binary Supervision",
    year=2019,
    arxiv="1904.09626",
)
WU = Paper(
    authors="Wu, Manmatha, Smola, Krähenbühl",
    title="Sampling Matters in Deep Embedding Learning",
    year=2017,
    arxiv="1706.07567",
)
