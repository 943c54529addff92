"""Built-in plugin ``core``: the reducers and distances that every family shares."""

from __future__ import annotations

from nearfar.contributions import CommandSpec
from nearfar.hookspecs import hookimpl
from nearfar.spec import DistanceSpec, ReducerSpec


@hookimpl
def nearfar_reducers() -> list[ReducerSpec]:
    return [
        ReducerSpec(
            name="mean",
            target="nearfar.nn.reducers:Mean",
            summary="The mean of all terms.",
            definition="nearfar.definitions:mean",
            memory=1,
            synchronizations=0,
        ),
        ReducerSpec(
            name="sum",
            target="nearfar.nn.reducers:Sum",
            summary="The sum of all terms.",
            definition="nearfar.definitions:total",
            memory=1,
            synchronizations=0,
        ),
        ReducerSpec(
            name="avg_non_zero",
            target="nearfar.nn.reducers:AvgNonZero",
            summary="The mean of the terms greater than zero.",
            definition="nearfar.definitions:avg_non_zero",
            memory=1,
            synchronizations=0,
        ),
        ReducerSpec(
            name="top_k",
            target="nearfar.nn.reducers:TopK",
            summary="The mean of the k greatest terms.",
            example="k=3",
            definition="nearfar.definitions:top_k",
            memory=1,
            synchronizations=0,
        ),
        ReducerSpec(
            name="divisor",
            target="nearfar.nn.reducers:Divisor",
            summary="The sum of all terms over what the loss gives to divide by.",
            definition="nearfar.definitions:divisor",
            memory=1,
            synchronizations=0,
        ),
        ReducerSpec(
            name="threshold",
            target="nearfar.nn.reducers:Threshold",
            summary="The mean of the terms above one bound and below another.",
            example="low=1.2",
            definition="nearfar.definitions:threshold",
            memory=1,
            synchronizations=0,
        ),
        ReducerSpec(
            name="class_weighted",
            target="nearfar.nn.reducers:ClassWeighted",
            summary="The mean of all terms, each times the weight of its anchor's class.",
            example="class_weights=[1, 2, 0.5, 3, 0.25, 1.5]",
            asks=("labels",),
            definition="nearfar.definitions:class_weighted",
            memory=1,
            synchronizations=0,
        ),
        ReducerSpec(
            name="per_anchor",
            target="nearfar.nn.reducers:PerAnchor",
            summary="The mean over anchors of the mean within each.",
            definition="nearfar.definitions:per_anchor",
            memory=1,
            synchronizations=0,
        ),
        ReducerSpec(
            name="per_group",
            target="nearfar.nn.reducers:PerGroup",
            asks=("labels", "groups"),
            summary="The mean over groups, such as images or else classes, of the mean within each.",
            definition="nearfar.definitions:per_group",
            memory=1,
            synchronizations=0,
        ),
        ReducerSpec(
            name="none",
            target="nearfar.nn.reducers:NoReduction",
            summary="Every term, unreduced; makes each value, however the loss would compute their sum.",
            keeps=True,
            definition="nearfar.definitions:none",
            memory=1,
            synchronizations=0,
        ),
    ]


@hookimpl
def nearfar_distances() -> list[DistanceSpec]:
    return [
        DistanceSpec(
            name="euclidean",
            target="nearfar.nn.distances:Euclidean",
            summary="Euclidean distance of normalised embeddings.",
            range=(0.0, 2.0),
            metric=True,
            aliases=("l2",),
            definition="nearfar.definitions:euclidean",
            memory=2,
            synchronizations=0,
        ),
        DistanceSpec(
            name="squared_euclidean",
            target="nearfar.nn.distances:SquaredEuclidean",
            summary="Squared Euclidean distance of normalised embeddings: 2 − 2 cos θ.",
            range=(0.0, 4.0),
            definition="nearfar.definitions:squared_euclidean",
            memory=2,
            synchronizations=0,
        ),
        DistanceSpec(
            name="cosine",
            target="nearfar.nn.distances:Cosine",
            summary="Cosine similarity; larger is nearer.",
            similarity=True,
            range=(-1.0, 1.0),
            definition="nearfar.definitions:cosine",
            memory=2,
            synchronizations=0,
        ),
        DistanceSpec(
            name="dot",
            target="nearfar.nn.distances:Dot",
            summary="Inner product of embeddings as they are; larger is nearer.",
            similarity=True,
            range=(-float("inf"), float("inf")),
            definition="nearfar.definitions:dot",
            memory=2,
            synchronizations=0,
        ),
    ]


@hookimpl
def nearfar_commands() -> list[CommandSpec]:
    return [
        CommandSpec(
            group="bench",
            name="losses",
            target="nearfar.cli.bench_losses:command",
            summary="Losses by the protocol of A Metric Learning Reality Check.",
        ),
    ]
