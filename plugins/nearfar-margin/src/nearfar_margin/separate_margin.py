"""The base of the margin losses without a softmax: a loss for each class, summed over the classes."""

from __future__ import annotations

from torch import nn

from nearfar_margin.engine_loss import Engine
from nearfar_margin.margin_softmax import MarginSoftmax

__all__ = ["SeparateMargin"]


class SeparateMargin(MarginSoftmax):
    """A margin loss that judges each class by itself; ``target`` and ``others`` are losses rather than logits.

    There is no probability to spread over the classes, so it takes no label smoothing; for the rest it is a
    :class:`~nearfar_margin.margin_softmax.MarginSoftmax`.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    scale : float
        (0..inf] What cosines are multiplied with.
    """

    separate = True

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        scale: float,
        engine: Engine = "auto",
        memory_budget: float | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(
            num_classes, embedding_size, scale=scale, engine=engine, memory_budget=memory_budget, reducer=reducer
        )
