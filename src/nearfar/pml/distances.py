"""Distances and similarities."""

from __future__ import annotations

from nearfar.pml.failures import failing
from nearfar.pml.names import NO_VARIANCE, SIGNAL_TO_NOISE, named
from nearfar.spec import Defect, DistanceSpec

_INFINITY = float("inf")
_BFLOAT16 = "Embeddings in bfloat16 raise an error on a CPU."
_APART = "With more than 25 rows, equal rows come out up to about 1e-3 apart."
_RETURNS_NONE = (
    "A call without iter_fn raises TypeError and one with it returns None: it does not work in a loss or a miner."
)

DISTANCES = (
    DistanceSpec(
        **named("distances.lp_distance:LpDistance"),
        summary="The Lp distance of normalised embeddings, to a power; Euclidean by default.",
        range=(0.0, 2.0),
        metric=True,
        deviations=("p is the norm of the distance and of the normalisation: p=1 normalises to a sum of 1.",),
        defects=(_BFLOAT16, _APART),
        expected_failures=failing(_BFLOAT16, "distance_precision[bfloat16]") | failing(_APART, "identity[float32]"),
    ),
    DistanceSpec(
        **named("distances.cosine_similarity:CosineSimilarity"),
        summary="Cosine similarity; larger is nearer.",
        similarity=True,
        range=(-1.0, 1.0),
        defects=(
            Defect(
                says="p=1 is accepted and gives similarities that are no cosines: an embedding with itself is not 1.",
                argument="p",
            ),
        ),
    ),
    DistanceSpec(
        **named("distances.dot_product_similarity:DotProductSimilarity"),
        summary="Inner product, of normalised embeddings unless normalize_embeddings=False; larger is nearer.",
        similarity=True,
        range=(-1.0, 1.0),
        deviations=("Embeddings are normalised by default, so that it is the cosine.",),
    ),
    DistanceSpec(
        **named("distances.snr_distance:SNRDistance"),
        summary="The variance of the difference over the variance of the first; not symmetric.",
        paper=SIGNAL_TO_NOISE,
        symmetric=False,
        deviations=("Embeddings are normalised by default; in the paper they are not.",),
        defects=(NO_VARIANCE,),
        expected_failures=failing(NO_VARIANCE, "distance_degenerate[float64]", "distance_degenerate[float32]"),
    ),
    DistanceSpec(
        **named("distances.batched_distance:BatchedDistance"),
        example="distance=pml.lp_distance",
        summary="Hands another distance's rows to a function, block by block.",
        range=(-_INFINITY, _INFINITY),
        defects=(_RETURNS_NONE,),
        expected_failures=failing(_RETURNS_NONE, "runs"),
    ),
)
