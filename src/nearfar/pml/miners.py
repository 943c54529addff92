"""Miners."""

from __future__ import annotations

from nearfar.pml.failures import NOT_ROWS, REFERENCE_SIZE, SILENT_SHAPE, failing
from nearfar.pml.names import ANGULAR, ANY, COSINE, FACENET, HERMANS, IGNORES_DISTANCE, LP, MULTI_SIMILARITY, WU, named
from nearfar.spec import Defect, MinerSpec, Paper

_NOTHING = failing(
    "An empty batch or reference set raises an error of torch's about a reduction of nothing.",
    "batches[empty]",
    "batches[empty_reference]",
)

MINERS = (
    MinerSpec(
        **named("miners.angular_miner:AngularMiner"),
        summary="Triplets whose angle at the negative is greater than a threshold.",
        family="triplet",
        paper=ANGULAR,
        produces="triplets",
        distances=(LP,),
        default_distance=LP,
        deviations=("angle is in degrees (20).",),
        expected_failures=REFERENCE_SIZE
        | failing(SILENT_SHAPE, "shapes[flat_embeddings]")
        | failing(NOT_ROWS, "shapes[stacked_embeddings]"),
    ),
    MinerSpec(
        **named("miners.batch_easy_hard_miner:BatchEasyHardMiner"),
        summary="For each anchor one positive and one negative: easy, semihard or hard, or all of them.",
        family="pair",
        paper=Paper(
            authors="Xuan, Stylianou, Pless",
            title="Improved Embeddings with Easy Positive Triplet Mining",
            year=2020,
            arxiv="1904.04370",
        ),
        produces="pairs",
        distances=ANY,
        default_distance=LP,
        expected_failures=REFERENCE_SIZE | _NOTHING,
    ),
    MinerSpec(
        **named("miners.batch_hard_miner:BatchHardMiner"),
        summary="For each anchor its farthest positive and its nearest negative.",
        family="triplet",
        paper=HERMANS,
        produces="triplets",
        distances=ANY,
        default_distance=LP,
        expected_failures=REFERENCE_SIZE | _NOTHING,
    ),
    MinerSpec(
        **named("miners.distance_weighted_miner:DistanceWeightedMiner"),
        summary="Triplets whose negative is drawn with the inverse density of its distance.",
        family="triplet",
        paper=WU,
        produces="triplets",
        distances=(LP,),
        default_distance=LP,
        random=True,
        deviations=(
            "An anchor whose weights all underflow is dropped: the greatest log-weight of the whole batch is taken off "
            "every row, so one hard pair in a batch of 512-dimensional embeddings leaves 2 anchors of 64.",
        ),
        expected_failures=REFERENCE_SIZE | _NOTHING | failing(NOT_ROWS, "shapes[flat_embeddings]"),
    ),
    MinerSpec(
        **named("miners.embeddings_already_packaged_as_triplets:EmbeddingsAlreadyPackagedAsTriplets"),
        summary="Takes the batch as anchor, positive, negative, anchor, positive, negative and so on.",
        family="triplet",
        produces="triplets",
        reference=False,
        order_dependent=True,
        expected_failures=failing(
            "A batch of none, or whose size is no multiple of three, raises an error without a word.",
            "batches[empty]",
            "batches[one_sample]",
            "batches[two_samples]",
            "batches[no_positives]",
            "batches[unbalanced]",
        )
        | failing(SILENT_SHAPE, "shapes[flat_embeddings]", "shapes[stacked_embeddings]")
        | failing(IGNORES_DISTANCE, "distance_honoured")
        | failing("It takes no reference set, and ignores one without a word.", "mining_reference")
        | failing("Its indices are on the CPU, wherever the embeddings are.", "device"),
    ),
    MinerSpec(
        **named("miners.hdc_miner:HDCMiner"),
        summary="The hardest share of positive, and of negative, pairs.",
        family="pair",
        paper=Paper(
            authors="Yuan, Yang, Zhang", title="Hard-Aware Deeply Cascaded Embedding", year=2017, arxiv="1611.05720"
        ),
        produces="pairs",
        distances=ANY,
        default_distance=LP,
        expected_failures=REFERENCE_SIZE,
    ),
    MinerSpec(
        **named("miners.multi_similarity_miner:MultiSimilarityMiner"),
        summary="Pairs that are harder, by epsilon, than the hardest of the other sort.",
        family="pair",
        paper=MULTI_SIMILARITY,
        produces="pairs",
        distances=ANY,
        default_distance=COSINE,
        expected_failures=REFERENCE_SIZE,
    ),
    MinerSpec(
        **named("miners.pair_margin_miner:PairMarginMiner"),
        summary="Positive pairs beyond pos_margin and negative pairs within neg_margin.",
        family="pair",
        produces="pairs",
        distances=ANY,
        default_distance=LP,
        thresholds={"pos_margin": "positive", "neg_margin": "negative"},
        expected_failures=REFERENCE_SIZE,
    ),
    MinerSpec(
        **named("miners.triplet_margin_miner:TripletMarginMiner"),
        summary="Triplets that violate a margin: all, hard or semihard ones; or the easy ones that do not.",
        family="triplet",
        paper=FACENET,
        produces="triplets",
        distances=ANY,
        default_distance=LP,
        deviations=("The margin is on distances; the paper's is on squared ones (LpDistance(power=2)).",),
        defects=(
            Defect(
                says="A type_of_triplets that it does not know, such as 'semi-hard', means 'all' without a word.",
                argument="type_of_triplets",
                spares=("hard", "semihard", "easy"),
            ),
        ),
        expected_failures=REFERENCE_SIZE,
    ),
    MinerSpec(
        **named("miners.uniform_histogram_miner:UniformHistogramMiner"),
        summary="Pairs drawn so that their distances are spread evenly over bins.",
        family="pair",
        produces="pairs",
        distances=ANY,
        default_distance=LP,
        random=True,
        expected_failures=REFERENCE_SIZE,
    ),
)
