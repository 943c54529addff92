"""What a matcher hands to a loss: which prediction stands for which target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = ["Matched", "Matcher", "Matches"]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Pairs of predictions and targets.

    Attributes
    ----------
    predictions, targets
        (k,) int64 each: prediction ``predictions[i]`` stands for target ``targets[i]``. No prediction stands for two.
    ignored
        (j,) int64: predictions that are neither matched nor background.
    size
        How many predictions there were to match.
    quality
        (k,) how near the two of each pair are, from 0 to 1.
    weights
        (k,) how much each pair counts, or None where all do the same.
    box_format
        How boxes were written, such as ``"xyxy"``.
    """

    predictions: Tensor
    targets: Tensor
    ignored: Tensor
    size: int
    quality: Tensor
    weights: Tensor | None = None
    box_format: str = "xyxy"

    @property
    def normalizer(self) -> Tensor:
        """What a loss over these pairs is divided by: their weight altogether, or their number; 1 at least. 0-d."""
        if self.weights is not None:
            return self.weights.sum().clamp_min(1)
        count = max(len(self.predictions), 1)
        return torch.full((), count, dtype=torch.int64, device=self.predictions.device)


class Matcher(nn.Module):
    """A choice of the prediction that stands for each target, or of several; a subclass writes :meth:`match`.

    Called it returns ``(predictions, targets, ignored)``, three index tensors, the first two of one length.
    """

    produces: ClassVar[str] = "matches"
    #: What it is called with.
    inputs: ClassVar[tuple[str, ...]]
    #: What else it may be called with, by name.
    optional_inputs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def match(self, *inputs: Tensor, **options: Tensor | None) -> Matches:
        """Which predictions stand for which targets, and which for none."""

    def forward(self, *inputs: Tensor, **options: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The places of predictions and of the targets that they stand for, (k,) int64 each, and of what is ignored."""
        matches = self.match(*inputs, **options)
        return matches.predictions, matches.targets, matches.ignored


@runtime_checkable
class Matched(Protocol):
    """A loss that can be asked for what it is of matches."""

    def of_matches(self, matches: Matches, given: Mapping[str, Any]) -> dict[str, Any]:
        """What it is to be called with, by name: ``given`` as a criterion has it, seen by way of the matches."""
