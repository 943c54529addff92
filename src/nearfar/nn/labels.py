"""Who belongs together where that is not told by one class id each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

__all__ = ["ALL", "Relation", "SharedLabels"]

#: Every anchor of a batch.
ALL = slice(None)


class Relation(ABC):
    """Which references are positives and which negatives of each anchor, a few anchors at a time.

    A reference may be neither. That an element is not compared with itself is not its matter.
    """

    @abstractmethod
    def positive(self, anchors: slice = ALL) -> Tensor:
        """(r, m) boolean: which references are positives of these anchors."""

    @abstractmethod
    def negative(self, anchors: slice = ALL) -> Tensor:
        """(r, m) boolean: which references are negatives of these anchors."""

    @abstractmethod
    def of(self, anchors: Tensor) -> Relation:
        """The relation of other anchors, which are those of an index tensor."""

    @abstractmethod
    def turned(self) -> Relation:
        """The relation with the references for anchors."""


@dataclass(frozen=True, slots=True, eq=False)
class SharedLabels(Relation):
    """Multi-hot labels: positives share at least one, negatives none.

    Attributes
    ----------
    anchor_labels, reference_labels
        (n, classes) and (m, classes) float32, 0 or 1.
    """

    anchor_labels: Tensor
    reference_labels: Tensor

    def positive(self, anchors: slice = ALL) -> Tensor:
        return self.anchor_labels[anchors] @ self.reference_labels.T > 0.5

    def negative(self, anchors: slice = ALL) -> Tensor:
        return ~self.positive(anchors)

    def of(self, anchors: Tensor) -> SharedLabels:
        return SharedLabels(self.anchor_labels[anchors], self.reference_labels)

    def turned(self) -> SharedLabels:
        return SharedLabels(self.reference_labels, self.anchor_labels)
