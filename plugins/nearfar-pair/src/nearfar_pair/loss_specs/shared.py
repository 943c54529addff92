"""What specs of losses have in common."""

from __future__ import annotations

from typing import Any

from nearfar.spec import LossSpec, Paper

__all__ = ["COSINE", "NORMALIZED", "loss", "published"]

NORMALIZED = "Embeddings are normalised by the default distance; the paper's are not."
COSINE = ("core.cosine",)


def loss(name: str, made_by: str, summary: str, paper: Paper, **fields: Any) -> LossSpec:
    """The spec of a loss in the module of its name: one on any distance, with selections and a reference set."""
    common: dict[str, Any] = {
        "accepts": ("pairs", "triplets"),
        "reference": True,
        "distances": ("*",),
        "default_distance": "core.cosine",
        "definition": f"nearfar_pair.loss_definitions:{name}",
        "memory": 2,
        "synchronizations": 0,
    }
    target = f"nearfar_pair.losses.{name}:{made_by}"
    return LossSpec(name=name, target=target, summary=summary, paper=paper, **common | fields)


def published(authors: str, title: str, year: int, where: str) -> Paper:
    """A paper on arXiv, where that is the place it has, or at a venue."""
    return Paper(authors=authors, title=title, year=year, **{"arxiv" if where[:4].isdigit() else "venue": where})
