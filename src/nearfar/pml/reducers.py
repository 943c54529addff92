"""Reducers."""

from __future__ import annotations

from nearfar.pml.names import named
from nearfar.spec import ReducerSpec

REDUCERS = (
    ReducerSpec(**named("reducers.mean_reducer:MeanReducer"), summary="The mean of all terms."),
    ReducerSpec(**named("reducers.sum_reducer:SumReducer"), summary="The sum of all terms."),
    ReducerSpec(
        **named("reducers.avg_non_zero_reducer:AvgNonZeroReducer"), summary="The mean of the terms greater than zero."
    ),
    ReducerSpec(
        **named("reducers.threshold_reducer:ThresholdReducer"),
        summary="The mean of the terms between low and high.",
    ),
    ReducerSpec(
        **named("reducers.class_weighted_reducer:ClassWeightedReducer"),
        summary="The mean of the terms, each weighted by the class of its anchor.",
        defects=("The weights are not saved with state_dict.",),
    ),
    ReducerSpec(
        **named("reducers.divisor_reducer:DivisorReducer"),
        summary="The sum of the terms over a divisor that the loss supplies.",
        defects=("Every loss but margin_loss and proxy_anchor_loss supplies no divisor, and raises KeyError.",),
    ),
    ReducerSpec(
        **named("reducers.per_anchor_reducer:PerAnchorReducer"),
        summary="Pairs are averaged for each anchor, then reduced as elements.",
        reduces=("element", "pos_pair", "neg_pair"),
        defects=("With a reference set larger than the batch it raises IndexError.",),
    ),
    ReducerSpec(
        **named("reducers.multiple_reducers:MultipleReducers"),
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
