"""What a pass over the rows of all anchors does, and its outputs from the whole matrix at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from nearfar_pair.few_rows import slices
from nearfar_pair.row_distance import RowDistance
from nearfar_pair.sides import Rows, Sides
from nearfar_pair.sloped import Sloped, SlopedFormula

__all__ = ["Formula", "Plan"]

#: Of :class:`Rows` and parameters, tensors (r, …) whose rows depend on one anchor alone.
Formula = Callable[..., tuple[Tensor, ...]]


@dataclasses.dataclass(slots=True, eq=False)
class Plan:
    """What a pass does.

    Attributes
    ----------
    distance, sides, formula, sloped, is_ragged, sums
        As of :class:`~nearfar_pair.row_pass.RowPass`.
    is_raw
        Whether the embeddings are as they were given, normalised or not.
    found
        Where a pass leaves what it found that nobody differentiates.
    """

    distance: Any
    sides: Sides
    formula: Formula
    sloped: SlopedFormula | None = None
    is_ragged: bool = False
    sums: int = 0
    is_raw: bool = False
    found: Sloped | None = None

    def chunks(self) -> Iterator[slice]:
        return slices(self.sides)

    def rows(self, distance: RowDistance, anchors: slice, buffers: Sequence[Tensor]) -> Rows:
        """The rows of these anchors, in the first of three buffers, of which the others are their scratch memory."""
        d, scratch, spare = (buffer[: anchors.stop - anchors.start] for buffer in buffers)
        rows = self.sides.rows(distance.rows(anchors, d), anchors, in_place=True, scratch=scratch)
        return dataclasses.replace(rows, spare=spare)

    def buffers(self, like: Tensor) -> list[Tensor]:
        """Some for the rows of a few anchors; not one in parts, as autograd would take a change of one for all.

        What is never written to takes no memory.
        """
        first = next(self.chunks())
        return [like.new_empty(first.stop - first.start, self.sides.shape[1]) for _ in range(3)]

    def differentiable(self, query: Tensor, reference: Tensor | None, *parameters: Tensor) -> tuple[Tensor, ...]:
        """The outputs from the whole matrix: for second derivatives."""
        if self.is_raw:
            query = self.distance.maybe_normalize(query)
            reference = None if reference is None else self.distance.maybe_normalize(reference)
        matrix = self.distance.matrix(query, query if reference is None else reference)
        matrix = -matrix if self.distance.is_inverted else matrix
        rows = self.sides.rows(matrix, slice(0, len(matrix)), in_place=False)
        return self.formula(rows, *parameters)

    def differentiable_sums(self, *inputs: Any) -> list[Tensor]:
        """The sums of the first of these outputs."""
        return [output.sum() for output in self.differentiable(*inputs)[: self.sums]]
