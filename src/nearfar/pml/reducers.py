"""Reducers."""

from __future__ import annotations

from nearfar.pml.failures import failing
from nearfar.pml.names import named
from nearfar.spec import ReducerSpec

_TENSOR = "weights must be a tensor, which a recipe cannot write: a list raises AttributeError."
_NO_DIVISOR = "Every loss but margin_loss and proxy_anchor_loss supplies no divisor, and raises KeyError."
_BATCH_BY_BATCH = "With a reference set larger than the batch it raises IndexError."

REDUCERS = (
    ReducerSpec(**named("reducers.mean_reducer:MeanReducer"), summary="The mean of all terms."),
    ReducerSpec(**named("reducers.sum_reducer:SumReducer"), summary="The sum of all terms."),
    ReducerSpec(
        **named("reducers.avg_non_zero_reducer:AvgNonZeroReducer"), summary="The mean of the terms greater than zero."
    ),
    ReducerSpec(
        **named("reducers.threshold_reducer:ThresholdReducer"),
        example="low=0.0",
        summary="The mean of the terms between low and high.",
    ),
    ReducerSpec(
        **named("reducers.class_weighted_reducer:ClassWeightedReducer"),
        example="weights=[1.0, 2.0, 1.0, 2.0, 1.0, 2.0]",
        asks=("labels",),
        summary="The mean of the terms, each weighted by the class of its anchor.",
        deviations=(_TENSOR,),
        defects=("The weights are not saved with state_dict.",),
        expected_failures=failing(_TENSOR, "runs"),
    ),
    ReducerSpec(
        **named("reducers.divisor_reducer:DivisorReducer"),
        summary="The sum of the terms over a divisor that the loss supplies.",
        defects=(_NO_DIVISOR,),
        expected_failures=failing(_NO_DIVISOR, "pml_losses")
        | failing(
            "It divides after the sum, which in float16 ends at 65504: beyond that it is infinite.",
            "reduced_half[float16]",
        ),
    ),
    ReducerSpec(
        **named("reducers.per_anchor_reducer:PerAnchorReducer"),
        summary="Pairs are averaged for each anchor, then reduced as elements.",
        reduces=("element", "pos_pair", "neg_pair"),
        defects=(_BATCH_BY_BATCH,),
        expected_failures=failing(_BATCH_BY_BATCH, "pml_losses", "reference_terms"),
    ),
    ReducerSpec(
        **named("reducers.multiple_reducers:MultipleReducers"),
        example="reducers={'loss': pml.mean_reducer}",
        summary="A reducer for each sub-loss, by name; their sum.",
        defects=(
            "The sub-losses are added in the precision of the embeddings, so a half-precision batch rounds them.",
        ),
    ),
    ReducerSpec(
        **named("reducers.do_nothing_reducer:DoNothingReducer"),
        summary="Every term, unreduced: the dictionary that the loss made.",
        keeps=True,
    ),
)
