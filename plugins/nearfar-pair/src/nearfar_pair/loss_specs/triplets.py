"""Three and more: what the plugin says of these losses."""

from __future__ import annotations

from nearfar.spec import LossSpec, Preset
from nearfar_pair.loss_specs.shared import COSINE, NORMALIZED, loss, published
from nearfar_pair.papers import SCHROFF

__all__ = ["TRIPLET_LOSSES"]

TRIPLET_LOSSES: tuple[LossSpec, ...] = (
    LossSpec(
        name="triplet",
        target="nearfar_pair.losses.triplet:Triplet",
        summary="A negative farther from the anchor than a positive, by a margin.",
        schedulable=("margin",),
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
        definition="nearfar_pair.loss_definitions:triplet",
        memory=1,
        synchronizations=1,
        optimum=0.0,
    ),
    loss(
        "hinge_pair",
        "HingePair",
        "Every negative less similar than each positive, by a margin; all that are not add up.",
        published(
            "Frome, Corrado, Shlens, Bengio, Dean, Ranzato, Mikolov",
            "DeViSE: A Deep Visual-Semantic Embedding Model",
            2013,
            "NeurIPS",
        ),
        schedulable=("margin",),
        family="triplet",
        deviations=("An anchor may have several positives, over which the mean is taken; the paper's has one.",),
        memory=1,
        synchronizations=1,
        optimum=0.0,
    ),
    loss(
        "arcface_triplet",
        "ArcFaceTriplet",
        "A negative at a larger angle to the anchor than a positive, by a margin.",
        published(
            "Deng, Guo, Yang, Xue, Kotsia, Zafeiriou",
            "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
            2019,
            "1801.07698",
        ),
        schedulable=("margin",),
        family="triplet",
        deviations=("The paper gives no margin for its triplets; the default is that of its softmax.",),
        emits=("triplet",),
        distances=COSINE,
        default_reducer="core.avg_non_zero",
        memory=1,
        synchronizations=1,
        optimum=0.0,
    ),
    loss(
        "quadruplet",
        "Quadruplet",
        "A positive pair nearer than every negative of its anchor, and than every negative pair of other classes.",
        published(
            "Chen, Chen, Zhang, Huang",
            "Beyond Triplet Loss: A Deep Quadruplet Network for Person Re-identification",
            2017,
            "1704.01719",
        ),
        family="triplet",
        deviations=(
            "The distance is any, by default squared Euclidean of normalised embeddings; the paper's is learned, a "
            "network on two embeddings.",
            "Terms that cost something are averaged, the paper sums; its margins that adapt to the batch are not here.",
        ),
        emits=("triplet", "pos_pair"),
        default_distance="core.squared_euclidean",
        default_reducer="core.avg_non_zero",
        synchronizations=None,
        optimum=0.0,
    ),
    loss(
        "centroid_triplet",
        "CentroidTriplet",
        "The centroid of an embedding's class, made without it, nearer than that of any other class, by a margin.",
        published(
            "Wieczorek, Rychalska, Dąbrowski",
            "On the Unreasonable Effectiveness of Centroids in Image Retrieval",
            2021,
            "2104.13643",
        ),
        family="triplet",
        deviations=(
            NORMALIZED,
            "Every sample is a query and only its own centroid is without it; the authors' code draws a query of each "
            "class and leaves the queries out of all centroids.",
        ),
        accepts=(),
        default_distance="core.squared_euclidean",
        memory=1,
        synchronizations=None,
        optimum=0.0,
    ),
)
