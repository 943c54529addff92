"""What is the same for every loss of the plugin."""

from __future__ import annotations

from functools import partial

from nearfar.spec import LossSpec

__all__ = ["CLAMPED", "UNMINED", "margin_loss"]

UNMINED = (
    "An element a miner did not select weighs 0, so with nothing selected the loss is 0; pytorch-metric-learning "
    "then weighs every element by 1."
)
CLAMPED = (
    "A cosine of exactly ±1, where the derivative of the angle is infinite, passes the gradient that the formula has "
    "without that derivative."
)

#: A spec with what all of them share.
margin_loss = partial(
    LossSpec,
    family="margin",
    needs=("num_classes", "embedding_size"),
    accepts=("pairs", "triplets", "weights"),
    memory=1,
    synchronizations=0,
)
