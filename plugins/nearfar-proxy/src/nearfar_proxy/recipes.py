"""Proxy losses as they are used, as recipes; those with a classifier need nearfar-margin beside."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.spec import Paper

__all__ = ["RECIPES"]

RECIPES = (
    RecipeSpec(
        name="center_loss",
        recipe="softmax + 0.003 * center",
        summary="A classifier beside the distance of each embedding to the centre of its class.",
        paper=Paper(
            authors="Wen, Zhang, Li, Qiao",
            title="A Discriminative Feature Learning Approach for Deep Face Recognition",
            year=2016,
            venue="ECCV 2016",
        ),
        source="the weight is the paper's, section 4.1",
        notes=("The classifier must not ignore the length of embeddings, or both together shrink them to 0.",),
    ),
)
