"""Pair and triplet losses as they are used, as recipes; those with a classifier need nearfar-margin beside."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.spec import Paper
from nearfar_pair.papers import WANG_2019, WANG_2020

__all__ = ["RECIPES"]

_REALITY_CHECK = Paper(
    authors="Musgrave, Belongie, Lim",
    title="A Metric Learning Reality Check",
    year=2020,
    arxiv="2003.08505",
)
_TUNED = "the authors' page on the paper, optimal hyperparameters, column CUB200"


def _tuned(name: str, recipe: str, title: str, *notes: str, **optimizer: float) -> RecipeSpec:
    return RecipeSpec(
        name=f"reality_check_{name}",
        recipe=recipe,
        summary=f"What was tuned for {title}, as fairly as for the others.",
        paper=_REALITY_CHECK,
        source=_TUNED,
        notes=notes,
        settings={"optimizer": optimizer} if optimizer else {},
    )


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
        source=(
            "the defaults of the authors' code, research-xbm: linear costs of cosine similarities, of negatives beyond "
            "0.5, and a memory of 8192 with weight 1; none of them was checked against the paper"
        ),
        notes=(
            "The authors' code begins with the memory at step 2000, in its sample configuration, whose memory is of "
            "55000, at 1000: warm_up=1000. Until then its memory is empty; here it is filled.",
            "It adds up the pairs of an anchor, a negative with its whole similarity; here those that cost something "
            "are averaged, a negative with what it has beyond 0.5.",
            "It puts a batch into the memory before it compares with it; here after.",
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
        notes=(
            "The paper has a batch normalisation between what the triplets and what the classifier see.",
            "The schedule is of the authors' configs/softmax_triplet.yml: Adam with a rate of 3.5e-4, which rises over "
            "10 of 120 epochs and is divided by ten after 40 and 70; AdamW takes Adam's place here.",
        ),
        settings={
            "batch": {"classes_per_batch": 16, "samples_per_class": 4},
            "optimizer": {"name": "adamw", "lr": 3.5e-4, "weight_decay": 5e-4},
            "schedule": {"name": "step", "warmup": 0.0833, "milestones": (0.3333, 0.5833), "gamma": 0.1},
        },
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
        source="the two losses, added with a weight, are the paper's",
        notes=(
            "The weight of 0.05 is told of the paper's section 4.1 and was not checked against it: tune it.",
            "The paper's pairs have a factor of ½, which contrastive leaves out, are not normalised, and have a margin "
            "that it adapts while it trains; the margin here is the default of contrastive.",
        ),
    ),
    _tuned(
        "contrastive",
        "contrastive(pos_margin=-0.2, neg_margin=0.3841, hinge='linear')",
        "contrastive pairs",
        "On Cars196 the margins are 0.2652 and 0.5409, on SOP 0.285 and 0.513.",
    ),
    _tuned("triplet", "triplet(margin=0.0961)", "triplets", "On Cars196 the margin is 0.119, on SOP 0.0451."),
    _tuned(
        "nt_xent",
        "nt_xent(temperature=0.0091)",
        "NT-Xent",
        "On Cars196 the temperature is 0.0219, on SOP 0.0002.",
    ),
    _tuned(
        "margin",
        "margin_beta(margin=0.0878, beta=0.7838, miner=all)",
        "the margin loss with one boundary",
        "On Cars196 margin and boundary are 0.0781 and 1.3164, on SOP 0.0915 and 1.1072.",
        "The rate of the boundary is 1.11e-4 on Cars196 and 1.82e-3 on SOP.",
        criterion_lr=1.31e-3,
    ),
    _tuned("fast_ap", "fast_ap(num_bins=17)", "FastAP", "On Cars196 there are 27 bins, on SOP 16."),
    _tuned(
        "snr_contrastive",
        "snr_contrastive(pos_margin=0.3264, neg_margin=0.8446)",
        "contrastive pairs on the signal-to-noise ratio",
        "Its penalty on the means of embeddings, of 0.1382, is left out; on Cars196 and SOP it is tuned to 0.",
        "On Cars196 the margins are 0.167 and 0.9337, on SOP 0.3759 and 1.0831.",
    ),
    _tuned(
        "multi_similarity",
        "multi_similarity(alpha=0.01, beta=50.6, base=0.56)",
        "multi-similarity",
        "On Cars196 they are 14.35, 75.83 and 0.66, on SOP 8.49, 57.38 and 0.41.",
    ),
    _tuned(
        "multi_similarity_mined",
        "multi_similarity(alpha=17.97, beta=75.66, base=0.77, miner=multi_similarity(epsilon=0.39))",
        "multi-similarity with its miner",
        "On Cars196 they are 7.49, 47.99, 0.63 and 0.72, on SOP 15.94, 156.61, 0.72 and 0.34.",
    ),
)
