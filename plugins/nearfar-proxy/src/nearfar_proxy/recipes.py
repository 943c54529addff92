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
    RecipeSpec(
        name="reality_check_proxy_nca",
        recipe="proxy_nca(scale=13.98, denominator='all')",
        summary="What was tuned for ProxyNCA, as fairly as for the others.",
        paper=Paper(
            authors="Musgrave, Belongie, Lim",
            title="A Metric Learning Reality Check",
            year=2020,
            arxiv="2003.08505",
        ),
        source="the authors' page on the paper, optimal hyperparameters, column CUB200",
        notes=(
            "On Cars196 the scale is 7.97, on SOP 10.73.",
            "The rate of the proxies is 4.43e-3 on Cars196 and 5.28e-4 on SOP.",
        ),
        settings={"optimizer": {"criterion_lr": 6.04e-3}},
    ),
)
