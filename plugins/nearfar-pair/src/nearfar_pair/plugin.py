"""Entry module of the plugin ``pair``: losses and miners on pairs and triplets."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.hookspecs import hookimpl
from nearfar.spec import LossSpec, MinerSpec, Paper, Preset
from nearfar_pair.recipes import RECIPES

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


@hookimpl
def nearfar_recipes() -> tuple[RecipeSpec, ...]:
    return RECIPES


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [
        LossSpec(
            name="contrastive",
            target="nearfar_pair.losses.contrastive:Contrastive",
            summary="Positive pairs within one distance, negative pairs beyond another.",
            family="contrastive",
            paper=HADSELL,
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
            accepts=("pairs", "triplets"),
            emits=("pos_pair", "neg_pair"),
            reference=True,
            distances=("*",),
            default_distance="core.euclidean",
            default_reducer="core.avg_non_zero",
            thresholds={"pos_margin": "positive", "neg_margin": "negative"},
            memory=2,
            synchronizations=0,
            optimum=0.0,
        ),
        LossSpec(
            name="triplet",
            target="nearfar_pair.losses.triplet:Triplet",
            summary="A negative farther from the anchor than a positive, by a margin.",
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
            memory=2,
            synchronizations=1,
            optimum=0.0,
        ),
        LossSpec(
            name="sup_con",
            target="nearfar_pair.losses.sup_con:SupCon",
            summary="Cross-entropy of each anchor's positives among all others of the batch.",
            family="contrastive",
            paper=KHOSLA,
            aliases=("supcon",),
            deviations=(
                "Without the factor temperature / base temperature of the reference code, 1 in its experiments.",
                "Anchors without a positive are left out of the mean; the paper's two views leave none.",
            ),
            accepts=("pairs", "triplets"),
            emits=("element",),
            reference=True,
            distances=("*",),
            default_distance="core.cosine",
            default_reducer="core.mean",
            memory=2,
            synchronizations=0,
        ),
    ]


@hookimpl
def nearfar_miners() -> list[MinerSpec]:
    return [
        MinerSpec(
            name="all",
            target="nearfar_pair.miners.all:All",
            summary="Every triplet of a batch.",
            family="triplet",
            expected_failures={
                "distance_honoured": "Every triplet is every triplet on any distance; it takes one so that miners can "
                "be exchanged."
            },
            produces="triplets",
            distances=("*",),
            definition="nearfar_pair.definitions:all_triplets",
            memory=3,
            synchronizations=2,
        ),
        MinerSpec(
            name="semihard",
            target="nearfar_pair.miners.semihard:SemiHard",
            summary="Triplets whose negative is farther than the positive, but by no more than the margin.",
            family="triplet",
            paper=SCHROFF,
            deviations=("All such negatives of a positive pair are selected; the paper picks one.",),
            produces="triplets",
            distances=("*",),
            example="margin=0.2",
            definition="nearfar_pair.definitions:semihard",
            memory=3,
            synchronizations=2,
        ),
        MinerSpec(
            name="hard",
            target="nearfar_pair.miners.hard:Hard",
            summary="Triplets whose negative is no farther than the positive.",
            family="triplet",
            paper=SCHROFF,
            produces="triplets",
            distances=("*",),
            definition="nearfar_pair.definitions:hard",
            memory=3,
            synchronizations=2,
        ),
        MinerSpec(
            name="batch_hard",
            target="nearfar_pair.miners.batch_hard:BatchHard",
            summary="For each anchor its farthest positive and its nearest negative.",
            family="triplet",
            paper=HERMANS,
            produces="triplets",
            distances=("*",),
            definition="nearfar_pair.definitions:batch_hard",
            memory=2,
            synchronizations=1,
        ),
    ]
