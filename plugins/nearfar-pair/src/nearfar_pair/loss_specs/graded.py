"""Relevance in grades: what the plugin says of these losses."""

from __future__ import annotations

from nearfar.spec import LossSpec
from nearfar_pair.loss_specs.shared import loss
from nearfar_pair.papers import KIM_2019

__all__ = ["GRADED_LOSSES"]

GRADED_LOSSES: tuple[LossSpec, ...] = (
    loss(
        "graded_log_ratio",
        "GradedLogRatio",
        "Ratios of distances between embeddings as those between their labels.",
        KIM_2019,
        graded=True,
        memory=1,
        family="graded",
        deviations=(
            "Every sample is an anchor; a batch of the paper has one, with its nearest neighbours by label and others.",
            "A number is added to distances before their logarithm, and they are not squared, as in the authors' code.",
        ),
        accepts=(),
        distances=("core.euclidean", "core.squared_euclidean"),
        default_distance="core.euclidean",
        expected_failures={
            "default_distance": "Its Euclidean distance is of embeddings as they are, as the paper has it: "
            "euclidean(normalize=False)."
        },
    ),
)
