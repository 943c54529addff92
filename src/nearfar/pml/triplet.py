"""Losses over triplets."""

from __future__ import annotations

from nearfar.pml.failures import (
    COLUMNS,
    LP_BFLOAT16,
    NO_BIN,
    NOT_ROWS,
    REFERENCE_SIZE,
    SUMMED_IN_HALF,
    VALUE_IN_HALF,
    failing,
)
from nearfar.pml.names import (
    ANGULAR,
    ANY,
    AVG_NON_ZERO,
    BY_ANCHOR,
    COLUMN,
    DIVISOR,
    FACENET,
    LP,
    MEAN,
    TUPLES,
    WU,
    named,
)
from nearfar.spec import Defect, LossSpec, Paper

_SWAP = (
    "swap=True with a reference set, as in cross_batch_memory, looks positives up among the batch: IndexError, or a "
    "wrong value where the sizes allow."
)
_MINED_NEGATIVES = "Mined negatives are ignored: every negative of the batch counts."
_GRAPH = (
    "The running histogram keeps the graph of earlier batches: the second backward raises 'Trying to backward through "
    "the graph a second time'."
)
_LAST_BIN = (
    "A triplet whose positive is 1.6 or more farther than its negative falls beyond the last bin: index out of bounds."
)
_HISTOGRAM = "The running histogram is updated in eval mode too and, no buffer, is not saved with state_dict."

LOSSES = (
    LossSpec(
        **named("losses.triplet_margin_loss:TripletMarginLoss"),
        summary="Triplet loss: the positive nearer to the anchor than the negative, by a margin.",
        family="triplet",
        paper=FACENET,
        accepts=TUPLES,
        emits=("triplet",),
        reference=True,
        distances=ANY,
        default_distance=LP,
        default_reducer=AVG_NON_ZERO,
        deviations=(
            "The margin of 0.05 is on distances; the paper's, 0.2, is on squared ones (LpDistance(power=2)).",
            "An integer triplets_per_anchor draws triplets at random.",
        ),
        defects=(Defect(says=_SWAP, argument="swap"),),
        expected_failures=REFERENCE_SIZE
        | LP_BFLOAT16
        | failing(_SWAP, "reference_used[swap=True]", "reference_permutation", "gradient[swap=True]"),
    ),
    LossSpec(
        **named("losses.margin_loss:MarginLoss"),
        summary="Margin loss: positives within beta − margin, negatives beyond beta + margin.",
        family="triplet",
        paper=WU,
        accepts=TUPLES,
        emits=("triplet", "already_reduced"),
        reference=True,
        distances=ANY,
        default_distance=LP,
        default_reducer=DIVISOR,
        thresholds={"beta": "negative"},
        deviations=(
            "Pairs are counted once for each triplet that they are in, where the paper sums over pairs.",
            "An integer triplets_per_anchor draws triplets at random.",
            "beta is learned only with learn_beta=True; fixed, it is neither a parameter nor a buffer.",
            "With learn_beta=True a second term, the penalty nu · beta, is added: a scalar that no reducer touches or, "
            "with num_classes, one value a triplet.",
        ),
        expected_failures=REFERENCE_SIZE
        | LP_BFLOAT16
        | SUMMED_IN_HALF
        | failing("A fixed beta is neither a parameter nor a buffer; each call moves a copy.", "device"),
    ),
    LossSpec(
        **named("losses.angular_loss:AngularLoss"),
        summary="Angular loss: an upper bound on the angle at the negative of each triplet.",
        family="triplet",
        paper=ANGULAR,
        accepts=TUPLES,
        emits=("pos_pair",),
        reference=True,
        distances=(LP,),
        default_distance=LP,
        default_reducer=MEAN,
        uses_norm=True,
        deviations=("alpha is in degrees (40).",),
        defects=(
            "Anchors and positives are normalised but negatives are not, so the value grows with the length of the "
            "embeddings.",
            _MINED_NEGATIVES,
            Defect(says=COLUMN, argument="reducer", shows=BY_ANCHOR),
        ),
        expected_failures=REFERENCE_SIZE
        | VALUE_IN_HALF
        | COLUMNS
        | failing(NOT_ROWS, "shapes[flat_embeddings]", "shapes[stacked_embeddings]")
        | failing(_MINED_NEGATIVES, "selection_honoured[negatives]")
        | failing("alpha is kept as a tensor that is neither a parameter nor a buffer.", "device"),
    ),
    LossSpec(
        **named("losses.dynamic_soft_margin_loss:DynamicSoftMarginLoss"),
        summary="Dynamic soft margin: triplets weighted by a running distribution of their margins.",
        family="triplet",
        paper=Paper(
            authors="Zhang, Rusinkiewicz",
            title="Learning Local Descriptors With a CDF-Based Dynamic Soft Margin",
            year=2019,
            venue="ICCV 2019",
        ),
        accepts=TUPLES,
        emits=("already_reduced",),
        reference=True,
        distances=(LP,),
        default_distance=LP,
        default_reducer="",
        deviations=("All triplets count, where the paper mines the hardest negative.",),
        defects=(_GRAPH, _LAST_BIN, _HISTOGRAM),
        expected_failures=REFERENCE_SIZE
        | LP_BFLOAT16
        | NO_BIN
        | failing(_GRAPH, "repeated")
        | failing(
            "The running histogram keeps the graph of the last batch, and torch copies no tensor that has one.",
            "copies[deepcopy]",
        )
        | failing(_LAST_BIN, "extremes[opposite]")
        | failing(_HISTOGRAM, "resumed", "device", "evaluation")
        | failing(
            "Without labels and a reference set each embedding is its own positive, and a number comes of it.",
            "inputs_needed",
        )
        | failing(
            "Under autocast on a CPU float32 is added to a histogram that was cast to half precision: RuntimeError.",
            "autocast[bfloat16]",
        ),
    ),
)
