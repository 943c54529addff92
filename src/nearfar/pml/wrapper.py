"""Losses around other losses."""

from __future__ import annotations

from nearfar.pml.failures import LP_BFLOAT16, PRODUCT_IN_HALF, SUMMED_IN_HALF, failing
from nearfar.pml.names import TUPLES, named
from nearfar.spec import LossSpec, Paper

_BY_NAME = (
    "Only losses whose class name is on a fixed list are accepted, so no subclass and no loss of another library is."
)

_FROM_OUTSIDE = (
    "A miner's choice from outside is taken, though it counts positions in the batch and is looked up in the memory: "
    "from the second batch on it pairs samples with the wrong ones."
)
_EVALUATION = "A batch is put into the queue in eval mode too, so that training goes on against what was evaluated."
_CHECKPOINT = (
    "A checkpoint keeps the queue but not its position nor whether it is full, so a resumed run starts from an empty "
    "one."
)

LOSSES = (
    LossSpec(
        **named("losses.cross_batch_memory:CrossBatchMemory"),
        example="loss=pml.contrastive_loss, memory_size=64",
        optional_inputs=("enqueue_mask",),
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
        detached="Embeddings in the memory, the batch's own among them, have no gradient.",
        defects=(_BY_NAME, _FROM_OUTSIDE, _EVALUATION, _CHECKPOINT),
        expected_failures=LP_BFLOAT16
        | SUMMED_IN_HALF
        | failing(_FROM_OUTSIDE, "accepts[pairs]", "accepts[triplets]")
        | failing(_EVALUATION, "evaluation")
        | failing(_CHECKPOINT, "resumed")
        | failing("A batch in half precision casts the queue to half precision.", "master_parameters")
        | failing("An empty batch raises IndexError in the search for pairs with itself.", "batches[empty]")
        | failing(
            "The queue is written before shapes are checked, so a wrong one raises an error of torch's about an index.",
            "shapes[lengths]",
            "shapes[label_column]",
            "shapes[flat_embeddings]",
            "shapes[stacked_embeddings]",
        ),
    ),
    LossSpec(
        **named("losses.self_supervised_loss:SelfSupervisedLoss"),
        example="loss=pml.nt_xent_loss",
        summary="Two views of the same samples, each its own class, given to another loss; takes no labels.",
        family="wrapper",
        inputs=("first_view", "second_view"),
        wraps=("pml.*",),
        emits=("already_reduced",),
        default_reducer="",
        defects=(_BY_NAME,),
        expected_failures=PRODUCT_IN_HALF,
    ),
    LossSpec(
        **named("losses.multiple_losses:MultipleLosses"),
        example="losses=[pml.contrastive_loss, pml.triplet_margin_loss]",
        summary="A weighted sum of losses, each with its own miner.",
        family="wrapper",
        accepts=TUPLES,
        emits=("already_reduced",),
        default_reducer="",
        deviations=("It takes an indices_tuple only where it has no miners of its own.",),
        expected_failures=LP_BFLOAT16 | SUMMED_IN_HALF,
    ),
)
