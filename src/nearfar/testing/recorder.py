"""A reducer that writes down what it is handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Entry", "Recorder"]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The terms of one sub-loss: their kind, their values, where each came from, and what a mean divides them by, if
    they say; and how many elements there are, which are not the samples of the batch where classes cost something."""

    kind: str
    values: Tensor
    indices: tuple[Tensor, ...]
    divisor: float | None
    elements: int


class Recorder(nn.Module):
    """The sum of all values, by pytorch-metric-learning's contract of reducers, which every loss keeps.

    What it was handed is in ``entries``. A copy is the recorder itself: some losses copy their reducer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []

    def __deepcopy__(self, memo: Any) -> Recorder:
        return self

    def forward(self, loss_dict: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        values = []
        for terms in loss_dict.values():
            losses, indices = terms["losses"], terms["indices"]
            if isinstance(losses, Tensor):  # the number 0 is how the absence of any term is written
                listed = () if indices is None else (indices,) if isinstance(indices, Tensor) else tuple(indices)
                divisor = float(terms["divisor"]) if "divisor" in terms else None
                elements = len(embeddings if labels is None else labels)
                self.entries.append(Entry(terms["reduction_type"], losses.detach(), listed, divisor, elements))
                values.append(losses.sum())
        return torch.stack(values).sum() if values else (embeddings * 0).sum()
