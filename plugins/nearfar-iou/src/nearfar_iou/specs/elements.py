"""Miners that choose among the terms of any loss, of boxes, logits or embeddings."""

from __future__ import annotations

from typing import Any

from nearfar.spec import MinerSpec, Paper

__all__ = ["SPECS"]

_SHARED: dict[str, Any] = {"family": "elements", "produces": "elements", "inputs": ("terms",), "reference": False}

SPECS = (
    MinerSpec(
        name="ohem",
        target="nearfar_iou.miners.ohem:OHEM",
        schedulable=("share",),
        summary="Of a loss's terms those that cost the most: online hard example mining.",
        paper=Paper(
            authors="Shrivastava, Gupta, Girshick",
            title="Training Region-based Object Detectors with Online Hard Example Mining",
            year=2016,
            arxiv="1604.03540",
        ),
        deviations=("Regions that overlap a harder one are kept; the paper suppresses them.",),
        memory=1,
        definition="nearfar_iou.definitions.matching:ohem",
        **_SHARED,
    ),
    MinerSpec(
        name="hard_negative_ratio",
        target="nearfar_iou.miners.hard_negative_ratio:HardNegativeRatio",
        schedulable=("ratio",),
        summary="Every positive, and of the negatives so many times as many that cost the most.",
        paper=Paper(
            authors="Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg",
            title="SSD: Single Shot MultiBox Detector",
            year=2016,
            arxiv="1512.02325",
        ),
        reduces=("element", "pos_pair", "neg_pair"),
        memory=1,
        definition="nearfar_iou.definitions.matching:hard_negative_ratio",
        **_SHARED,
    ),
)
