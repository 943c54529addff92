"""Proxy losses as they are used, as recipes; those with a classifier need nearfar-margin beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearfar.contributions import RecipeSpec
from nearfar.spec import Paper

__all__ = ["RECIPES"]

_ANCHOR = Paper(
    authors="Kim, Kim, Cho, Kwak",
    title="Proxy Anchor Loss for Deep Metric Learning",
    year=2020,
    arxiv="2003.13911",
)
_HELD = "The authors train the last layer and the proxies alone for the first {}, which a run here does not."


def _halved(lr: float, every: int, gamma: float, end: int = 60) -> Mapping[str, Mapping[str, Any]]:
    """AdamW from a rate that is multiplied with ``gamma`` each so many epochs, proxies from a hundred times it."""
    shares = tuple(round(epoch / end, 4) for epoch in range(every, end, every))
    return {
        "model": {"embedding_size": 512},
        "optimizer": {"name": "adamw", "lr": lr, "weight_decay": 1e-4, "criterion_lr": round(100 * lr, 10)},
        "schedule": {"name": "step", "warmup": 0.0, "milestones": shares, "gamma": gamma},
    }


RECIPES = (
    RecipeSpec(
        name="proxy_anchor_cub",
        recipe="proxy_anchor(margin=0.1, scale=32.0)",
        summary="Proxy-Anchor with the schedule of its authors for a pretrained ResNet-50 on CUB-200-2011.",
        paper=_ANCHOR,
        source="tjddus9597/Proxy-Anchor-CVPR2020, README and train.py: AdamW from 1e-4, halved every 5 of 60 epochs, "
        "proxies from 1e-2; weight decay 1e-4",
        notes=(
            "For Cars-196 the rate is halved every 10 epochs.",
            _HELD.format("5 epochs"),
            "The authors keep the statistics of batch normalisation as pretrained; batches have 120 images at random.",
        ),
        settings=_halved(1e-4, 5, 0.5),
    ),
    RecipeSpec(
        name="proxy_anchor_sop",
        recipe="proxy_anchor(margin=0.1, scale=32.0)",
        summary="Proxy-Anchor with the schedule of its authors for a pretrained Inception-BN on many small classes.",
        paper=_ANCHOR,
        source="tjddus9597/Proxy-Anchor-CVPR2020, README, Stanford Online Products and In-Shop: AdamW from 6e-4, "
        "divided by four every 20 of 60 epochs, proxies from 6e-2; weight decay 1e-4",
        notes=(_HELD.format("epoch"), "The authors' batches have 180 images, drawn at random."),
        settings=_halved(6e-4, 20, 0.25),
    ),
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
