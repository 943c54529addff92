"""What the plugin says of its miners."""

from __future__ import annotations

from typing import Any

from nearfar.spec import MinerSpec
from nearfar_pair.papers import HERMANS, SCHROFF, WANG_2019, WANG_ANGULAR, WU, XUAN, YUAN_2017

__all__ = ["MINERS"]


def _miner(name: str, made_by: str, summary: str, **fields: Any) -> MinerSpec:
    """The spec of a miner in the module of its name: of triplets, on any distance, on a few matrices."""
    common: dict[str, Any] = {
        "family": "triplet",
        "produces": "triplets",
        "distances": ("*",),
        "definition": f"nearfar_pair.definitions:{name}",
        "memory": 2,
        "synchronizations": 1,
    }
    return MinerSpec(name=name, target=f"nearfar_pair.miners.{name}:{made_by}", summary=summary, **{**common, **fields})


MINERS = (
    _miner(
        "all",
        "All",
        "Every triplet of a batch.",
        expected_failures={
            "distance_honoured": "Every triplet is every triplet on any distance; it takes one so that miners can "
            "be exchanged."
        },
        definition="nearfar_pair.definitions:all_triplets",
        memory=3,
        synchronizations=2,
    ),
    _miner(
        "semihard",
        "SemiHard",
        "Triplets whose negative is farther than the positive, but by no more than the margin.",
        schedulable=("margin",),
        borrows=("margin",),
        paper=SCHROFF,
        deviations=("All such negatives of a positive pair are selected; the paper picks one: semihard_one.",),
        example="margin=0.2",
        memory=3,
        synchronizations=2,
    ),
    _miner(
        "semihard_one",
        "SemiHardOne",
        "For each positive pair the nearest negative beyond it.",
        paper=SCHROFF,
        deviations=(
            "The nearest of the negatives beyond the positive is taken; the paper does not say which.",
            "Positive pairs come from the batch there is; the paper's batches are of 1,800 images, 40 of each face.",
        ),
        synchronizations=2,
    ),
    _miner(
        "hard",
        "Hard",
        "Triplets whose negative is no farther than the positive.",
        paper=SCHROFF,
        memory=3,
        synchronizations=2,
    ),
    _miner(
        "easy",
        "Easy",
        "Triplets whose negative is farther than the positive by more than the margin.",
        schedulable=("margin",),
        borrows=("margin",),
        paper=SCHROFF,
        deviations=("The paper leaves these out; with hard and semihard they are all triplets.",),
        example="margin=0.2",
        memory=3,
        synchronizations=2,
    ),
    _miner(
        "batch_hard",
        "BatchHard",
        "For each anchor its farthest positive and its nearest negative.",
        paper=HERMANS,
        memory=1,
    ),
    _miner(
        "hard_negative_all_positive",
        "HardNegativeAllPositive",
        "For each positive pair the nearest negative of its anchor.",
        paper=SCHROFF,
        deviations=("The nearest negative of the batch is taken, also where a positive is farther.",),
        synchronizations=2,
    ),
    _miner(
        "multi_similarity",
        "MultiSimilarityMiner",
        "Negatives nearer than the farthest positive, positives farther than the nearest negative, give or take.",
        schedulable=("epsilon",),
        family="pair",
        paper=WANG_2019,
        deviations=("An anchor left with one sort of pair keeps it, as in the equations; the official code drops it.",),
        produces="pairs",
        default_distance="core.cosine",
        synchronizations=2,
    ),
    _miner(
        "pair_margin",
        "PairMargin",
        "Positives beyond one distance, negatives within another.",
        schedulable=("pos_margin", "neg_margin"),
        family="pair",
        produces="pairs",
        thresholds={"pos_margin": "positive", "neg_margin": "negative"},
        synchronizations=2,
    ),
    _miner(
        "batch_easy_hard",
        "BatchEasyHard",
        "A positive and a negative of each anchor, each easy, hard, semi-hard or all there are.",
        family="pair",
        paper=XUAN,
        deviations=("Ranges of distances, and every pairing of strategies, are more than the paper has.",),
        produces="pairs",
        synchronizations=2,
    ),
    _miner(
        "angular",
        "Angular",
        "Triplets whose negative sees anchor and positive under a wide angle.",
        schedulable=("angle",),
        paper=WANG_ANGULAR,
        deviations=("The paper has the angle in its loss; here it selects for any.",),
        distances=(),
        memory=3,
        synchronizations=3,
    ),
    _miner(
        "hdc",
        "HDC",
        "Of all positive pairs the share that is farthest apart, of all negative pairs the nearest.",
        family="pair",
        paper=YUAN_2017,
        deviations=("The share is of all pairs of the batch; the paper's is of those that a shallower model kept.",),
        produces="pairs",
        synchronizations=3,
    ),
    _miner(
        "uniform_histogram",
        "UniformHistogram",
        "Pairs drawn so that the distances of positives, and those of negatives, are spread evenly.",
        family="pair",
        produces="pairs",
        definition="",
        order_dependent=True,
        synchronizations=9,
    ),
    _miner(
        "distance_weighted",
        "DistanceWeighted",
        "For each positive pair a negative drawn so that distances of negatives are spread evenly.",
        schedulable=("cutoff", "nonzero_loss_cutoff"),
        paper=WU,
        deviations=(
            "An anchor without a negative nearer than nonzero_loss_cutoff has none; the authors' code draws evenly.",
            "The distance is bounded from below; the paper bounds the weight.",
        ),
        distances=(),
        definition="",
        order_dependent=True,
        memory=2,
        synchronizations=3,
    ),
)
