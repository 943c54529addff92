"""Losses on two views of the same samples."""

from __future__ import annotations

from nearfar.pml.failures import EMPTY, SUMMED_IN_HALF, failing
from nearfar.pml.names import MEAN, named
from nearfar.spec import LossSpec, Paper

_ONE_VIEW = "Without the second view, ref_emb, it runs all the same, and its invariance term is always 0."

LOSSES = (
    LossSpec(
        **named("losses.vicreg_loss:VICRegLoss"),
        summary="VICReg: two views alike, each dimension's variance kept up, dimensions decorrelated; takes no labels.",
        family="self_supervised",
        paper=Paper(
            authors="Bardes, Ponce, LeCun",
            title="VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
            year=2022,
            arxiv="2105.04906",
        ),
        inputs=("embeddings", "ref_emb"),
        emits=("element", "already_reduced"),
        reference=True,
        default_reducer=MEAN,
        uses_norm=True,
        deviations=("No reducer touches the covariance term.",),
        defects=(_ONE_VIEW,),
        expected_failures=EMPTY
        | SUMMED_IN_HALF
        | failing(_ONE_VIEW, "inputs_needed")
        | failing("The terms of the variance, one a dimension, are handed out as elements of the batch.", "emits")
        | failing("embedding_regularizer and distance, of its base, are refused, None as well.", "signature")
        | failing("Views of different lengths raise an error of torch's that names neither.", "shapes[lengths]")
        | failing("The value of a single row is NaN: one row has no variance.", "batches[one_row]"),
    ),
)
