"""Losses on two views of the same samples."""

from __future__ import annotations

from nearfar.pml.names import MEAN, named
from nearfar.spec import LossSpec, Paper

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
        defects=("Without the second view, ref_emb, it runs all the same, and its invariance term is always 0.",),
    ),
)
