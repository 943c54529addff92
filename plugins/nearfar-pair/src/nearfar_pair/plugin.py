"""Entry module of the plugin ``pair``: losses and miners on pairs and triplets."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.hookspecs import hookimpl
from nearfar.spec import LossSpec, MinerSpec
from nearfar_pair.loss_specs import LOSSES
from nearfar_pair.papers import HERMANS, SCHROFF, WANG_2019
from nearfar_pair.recipes import RECIPES


@hookimpl
def nearfar_recipes() -> tuple[RecipeSpec, ...]:
    return RECIPES


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return list(LOSSES)


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
        MinerSpec(
            name="multi_similarity",
            target="nearfar_pair.miners.multi_similarity:MultiSimilarity",
            summary="Positives farther than the nearest negative, negatives nearer than the farthest positive.",
            family="pair",
            paper=WANG_2019,
            produces="pairs",
            distances=("*",),
            default_distance="core.cosine",
            definition="nearfar_pair.definitions:multi_similarity",
            memory=2,
            synchronizations=2,
        ),
    ]
