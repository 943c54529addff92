"""Losses around other losses."""

from __future__ import annotations

from nearfar.pml.names import TUPLES, named
from nearfar.spec import LossSpec, Paper

_BY_NAME = (
    "Only losses whose class name is on a fixed list are accepted, so no subclass and no loss of another library is."
)

LOSSES = (
    LossSpec(
        **named("losses.cross_batch_memory:CrossBatchMemory"),
        summary="Cross-batch memory: a loss between the batch and a queue of earlier embeddings.",
        family="wrapper",
        paper=Paper(
            authors="Wang, Zhang, Huang, Scott",
            title="Cross-Batch Memory for Embedding Learning",
            year=2020,
            arxiv="1912.06798",
        ),
        needs=("embedding_size",),
        emits=("already_reduced",),
        default_reducer="",
        wraps=("pml.*",),
        deviations=("A miner is given as its own argument, so that it can mine the memory.",),
        defects=(
            _BY_NAME,
            "A miner's choice from outside counts positions in the batch but is looked up in the memory: from the "
            "second batch on it pairs samples with the wrong ones.",
            "A checkpoint keeps the queue but not its position nor whether it is full, so a resumed run starts from "
            "an empty one.",
        ),
    ),
    LossSpec(
        **named("losses.self_supervised_loss:SelfSupervisedLoss"),
        summary="Two views of the same samples, each its own class, given to another loss; takes no labels.",
        family="wrapper",
        inputs=("first_view", "second_view"),
        wraps=("pml.*",),
        emits=("already_reduced",),
        default_reducer="",
        defects=(_BY_NAME,),
    ),
    LossSpec(
        **named("losses.multiple_losses:MultipleLosses"),
        summary="A weighted sum of losses, each with its own miner.",
        family="wrapper",
        accepts=TUPLES,
        emits=("already_reduced",),
        default_reducer="",
        deviations=("It takes an indices_tuple only where it has no miners of its own.",),
    ),
)
