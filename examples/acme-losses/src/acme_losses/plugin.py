from nearfar import LossSpec, MinerSpec, hookimpl


@hookimpl
def nearfar_losses():
    return [
        LossSpec(
            name="log_ratio",
            target="acme_losses.parts:LogRatio",
            summary="A triplet loss whose margin is on the ratio of distances, so that scale does not matter.",
            family="triplet",
            accepts=("triplets", "pairs"),
            emits=("triplet",),
            reference=True,
            distances=("euclidean", "squared_euclidean"),
            default_distance="core.euclidean",
        )
    ]


@hookimpl
def nearfar_miners():
    return [
        MinerSpec(
            name="nearest_impostor",
            target="acme_losses.parts:NearestImpostor",
            summary="Every positive pair with the anchor's nearest negative.",
            produces="triplets",
            distances=("*",),
        )
    ]
