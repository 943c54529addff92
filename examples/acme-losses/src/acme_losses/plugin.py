"""Entry module of the plugin ``acme``: what there is, said without importing it."""

from __future__ import annotations

from nearfar import LossSpec, MinerSpec, hookimpl


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [
        LossSpec(
            name="log_ratio",
            target="acme_losses.log_ratio:LogRatio",
            summary="A positive nearer than a negative by a factor, so that scale does not matter.",
            family="triplet",
            definition="acme_losses.definitions:log_ratio",
            accepts=("triplets", "pairs"),
            emits=("triplet",),
            reference=True,
            distances=("euclidean", "squared_euclidean"),
            default_distance="core.euclidean",
            optimum=0.0,
            memory=3,
            synchronizations=2,
        ),
    ]


@hookimpl
def nearfar_miners() -> list[MinerSpec]:
    return [
        MinerSpec(
            name="nearest_impostor",
            target="acme_losses.nearest_impostor:NearestImpostor",
            summary="Every positive pair with the anchor's nearest negative.",
            family="triplet",
            definition="acme_losses.definitions:nearest_impostor",
            produces="triplets",
            distances=("*",),
            memory=2,
        ),
    ]
