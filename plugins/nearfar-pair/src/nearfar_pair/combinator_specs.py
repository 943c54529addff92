"""What the plugin says of the losses that are around another."""

from __future__ import annotations

from typing import Any

from nearfar.spec import LossSpec, Paper
from nearfar_pair.papers import WANG_2020

__all__ = ["COMBINATORS"]


def _around(name: str, made_by: str, summary: str, **fields: Any) -> LossSpec:
    """The spec of a loss around another on embeddings, whose values it adds up."""
    common: dict[str, Any] = {
        "family": "wrapper",
        "accepts": ("pairs", "triplets"),
        "emits": ("already_reduced",),
        "default_reducer": "",
        "memory": 2,
    }
    target = f"nearfar_pair.combinators.{name}:{made_by}"
    return LossSpec(name=name, target=target, summary=summary, **common | fields)


COMBINATORS = (
    _around(
        "cross_batch_memory",
        "CrossBatchMemory",
        "A loss of the batch with itself and with a memory of earlier batches.",
        paper=WANG_2020,
        asks=("embeddings", "reference"),
        deviations=(
            "The loss of the batch with itself is a term of its own, as in the authors' code; the paper compares with "
            "the batch by way of the memory.",
        ),
        definition="nearfar_pair.combinator_definitions:cross_batch_memory",
        example="loss=triplet, size=64",
        synchronizations=3,
        optimum=0.0,
    ),
    _around(
        "symmetric",
        "Symmetric",
        "A loss between two views or two towers, the mean of both directions.",
        paper=Paper(
            authors="Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell, Mishkin, Clark, Krueger, Sutskever",
            title="Learning Transferable Visual Models From Natural Language Supervision",
            year=2021,
            arxiv="2103.00020",
        ),
        inputs=("embeddings", "labels", "ref_emb", "ref_labels"),
        sample="nearfar_pair.combinator_definitions:two_towers",
        accepts=(),
        asks=("embeddings", "reference"),
        definition="nearfar_pair.combinator_definitions:symmetric",
        example="loss=info_nce",
        memory=1,
        synchronizations=0,
    ),
    _around(
        "matryoshka",
        "Matryoshka",
        "A loss of the first dimensions of the embeddings, for several numbers of them.",
        paper=Paper(
            authors=(
                "Kusupati, Bhatt, Rege, Wallingford, Sinha, Ramanujan, Howard-Snyder, Chen, Kakade, Jain, Farhadi"
            ),
            title="Matryoshka Representation Learning",
            year=2022,
            arxiv="2205.13147",
        ),
        reference=True,
        asks=("embeddings",),
        deviations=(
            "A copy of the loss for each width, class weights and all: the paper's MRL; its MRL–E shares them.",
        ),
        definition="nearfar_pair.combinator_definitions:matryoshka",
        example="loss=triplet, dims=[4, 5]",
        memory=1,
        synchronizations=2,
        optimum=0.0,
    ),
    _around(
        "gather",
        "Gather",
        "A loss of the embeddings of all ranks as one batch.",
        reference=True,
        asks=("embeddings",),
        definition="nearfar_pair.combinator_definitions:gather",
        example="loss=triplet",
        synchronizations=1,
        optimum=0.0,
    ),
)
