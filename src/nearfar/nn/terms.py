"""What a loss hands to a reducer: its values, or what can be said of them without making them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from nearfar.errors import InputError

__all__ = ["MaterialTerms", "Terms", "element_terms"]

#: How many index tensors say where a value came from.
ARITY = {"element": 1, "pos_pair": 2, "neg_pair": 2, "triplet": 3}


class Terms(ABC):
    """The values of one sub-loss, and where each came from.

    A subclass gives :attr:`values` and :attr:`indices`; everything else follows from these two. One that
    knows a closed form overrides the method, and nothing is ever made that nobody asks for. All sums are
    differentiable, counts are not.

    Attributes
    ----------
    kind
        What one value stands for: ``element``, ``pos_pair``, ``neg_pair`` or ``triplet``.
    num_anchors
        Size of the batch the first index runs over.
    weights
        What the values were multiplied with already, (k,), or None.
    normalizer
        What a mean divides by instead of the count: a number or a 0-d tensor, or None.
    labels
        (num_anchors,) labels of the batch, or None.
    groups
        (num_anchors,) group of each anchor, such as its image, or None.
    positives
        (num_anchors,) whether each anchor is an object rather than background, or None where nothing is known of it.
    """

    kind: str
    num_anchors: int
    weights: Tensor | None = None
    normalizer: Tensor | float | None = None
    labels: Tensor | None = None
    groups: Tensor | None = None
    positives: Tensor | None = None

    @property
    @abstractmethod
    def values(self) -> Tensor:
        """Every value, weighted already: (k,)."""

    @property
    @abstractmethod
    def indices(self) -> tuple[Tensor, ...]:
        """Where each value came from: one index tensor (k,) for an element, two for a pair, three for a triplet."""

    def sum(self) -> Tensor:
        """The sum of all values; 0 with a usable gradient when there is none."""
        return self.values.sum()

    def sum_over(self, divisor: float) -> Tensor:
        """The sum of all values over a number greater than 0: a loss with a pass of its own divides within that."""
        return self.sum() / divisor

    @property
    def size(self) -> int | None:
        """How many values there are, where that is known without asking the device; None where it is not."""
        return None

    def count(self) -> Tensor:
        """How many values there are: a 0-d int64 tensor."""
        return torch.full((), len(self.values), dtype=torch.int64, device=self.values.device)

    def count_positive(self) -> Tensor:
        """How many values are greater than zero: a 0-d int64 tensor."""
        return (self.values > 0).sum()

    def sum_positive(self) -> Tensor:
        """The sum of the values greater than zero; of a loss that is never negative, the sum."""
        return self.values.clamp_min(0).sum()

    def sum_by_anchor(self) -> Tensor:
        """The sum of the values of each anchor: (num_anchors,)."""
        values = self.values
        return values.new_zeros(self.num_anchors).index_add(0, self.indices[0], values)

    def count_by_anchor(self) -> Tensor:
        """How many values each anchor has: (num_anchors,) int64."""
        anchors = self.indices[0]
        # Not by bincount, which waits for a GPU to know the greatest.
        return anchors.new_zeros(self.num_anchors, dtype=torch.int64).index_add(0, anchors, torch.ones_like(anchors))

    def blocks(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """The values and their indices, a part at a time, for reducers that must see each."""
        yield self.values, self.indices


class MaterialTerms(Terms):
    """Terms whose values are all there.

    Parameters
    ----------
    kind, values, indices, num_anchors
        As in :class:`Terms`.

    Raises
    ------
    InputError
        The values are not one-dimensional, or their indices are not of the same length.
    """

    def __init__(
        self,
        kind: str,
        values: Tensor,
        indices: tuple[Tensor, ...],
        *,
        num_anchors: int,
        weights: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        labels: Tensor | None = None,
        groups: Tensor | None = None,
        positives: Tensor | None = None,
    ) -> None:
        if kind not in ARITY:
            raise InputError(f"terms are of the kinds {', '.join(ARITY)}; not {kind!r}")
        if values.ndim != 1 or len(indices) != ARITY[kind] or any(index.shape != values.shape for index in indices):
            shapes = ", ".join(str(tuple(index.shape)) for index in indices)
            raise InputError(
                f"{kind} terms take values (k,) and {ARITY[kind]} index tensors (k,); "
                f"got values {tuple(values.shape)} and indices {shapes or 'none'}"
            )
        self.kind = kind
        self._values = values
        self._indices = indices
        self.num_anchors = num_anchors
        self.weights = weights
        self.normalizer = normalizer
        self.labels = labels
        self.groups = groups
        self.positives = positives

    @property
    def values(self) -> Tensor:
        return self._values

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return self._indices


class _ElementTerms(Terms):
    """One value for each element, in order: where each came from is written only when somebody asks."""

    kind = "element"

    def __init__(
        self,
        values: Tensor,
        weights: Tensor | None,
        normalizer: Tensor | float | None,
        labels: Tensor | None,
        groups: Tensor | None,
        positives: Tensor | None,
    ) -> None:
        if values.ndim != 1:
            raise InputError(f"element terms take values (n,); got {tuple(values.shape)}")
        self._values, self.num_anchors = values, len(values)
        self.weights, self.normalizer, self.labels = weights, normalizer, labels
        self.groups, self.positives = groups, positives

    @property
    def values(self) -> Tensor:
        return self._values

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return (torch.arange(len(self._values), device=self._values.device),)

    @property
    def size(self) -> int:
        return len(self._values)

    def sum_by_anchor(self) -> Tensor:
        return self.values

    def count_by_anchor(self) -> Tensor:
        return torch.ones(len(self.values), dtype=torch.int64, device=self.values.device)


def element_terms(
    values: Tensor,
    *,
    weights: Tensor | None = None,
    normalizer: Tensor | float | None = None,
    labels: Tensor | None = None,
    groups: Tensor | None = None,
    positives: Tensor | None = None,
) -> Terms:
    """Terms with one value for each element of the batch, multiplied here with ``weights`` (n,)."""
    weighted = values if weights is None else values * weights
    return _ElementTerms(weighted, weights, normalizer, labels, groups, positives)
