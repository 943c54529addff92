"""A formula of an anchor's row of distances, for every anchor, without the matrix of all distances.

A few rows at a time are computed, put through the formula and forgotten. The gradient is either taken on the way, where
only the sum is wanted, or in the backward pass from rows that are computed once more. The formula is ordinary
differentiable torch, so that one text serves small batches and foreign distances, whose matrix is made as a whole, and
second derivatives too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.selection import distance_matrix
from nearfar_pair.again import is_differentiable
from nearfar_pair.chosen import chosen_sides
from nearfar_pair.compiled.tier import fits
from nearfar_pair.compiled.work import Work
from nearfar_pair.once import once
from nearfar_pair.row_distance import row_distance
from nearfar_pair.row_functions import Outputs, Totals
from nearfar_pair.row_plan import Formula, Plan
from nearfar_pair.sides import FAR, SMALL, Rows, Sides
from nearfar_pair.sloped import Found, SlopedFormula
from nearfar_pair.split_rows import split
from nearfar_pair.whole_pass import WholeTotals

__all__ = ["Loop", "RowPass", "is_at_once", "is_table_cheaper"]

#: Up to so many distances to make a table of positives costs more than it saves a formula of each of them.
WIDE = 2**15


class Loop(Protocol):
    """A pass by compiled kernels, where :func:`~nearfar_pair.compiled.tier.fits` says so."""

    @property
    def kernels(self) -> Sequence[str]:
        """The names of the kernels it calls."""

    def run(self, work: Work) -> tuple[tuple[Tensor, ...], Sequence[Tensor]]:
        """The sums of the first outputs, differentiable, and what :attr:`RowPass.found` has."""


class RowPass:
    """A formula applied to every anchor of a batch.

    Parameters
    ----------
    batch, distance
        What is compared, and by what.
    formula
        Called with :class:`Rows` and the parameters; returns tensors of r rows each.
    parameters
        What else the outputs may be differentiated by.
    sloped
        The same formula with its own slopes, by which sums are differentiated without a graph; None where it has none.
    sums
        Of how many outputs, the first, the sum may be asked for.
    narrow
        As for :class:`~nearfar_pair.sides.Sides`.
    is_ragged
        Whether the outputs are lists of as many things as there are, not one row for each anchor; nothing is
        differentiated then.
    loop
        The sums by kernels; None where there are none.
    told
        The batch for these, without a selection that they see to themselves; None: the same.
    """

    def __init__(
        self,
        batch: Batch,
        distance: Any,
        formula: Formula,
        parameters: Sequence[Tensor] = (),
        *,
        sloped: SlopedFormula | None = None,
        sums: int = 1,
        narrow: bool = False,
        is_ragged: bool = False,
        loop: Loop | None = None,
        told: Batch | None = None,
    ) -> None:
        self._sums, self._loop, self._narrow = sums, loop, narrow
        self._told = batch if told is None else told
        self._quick: Sequence[Tensor] | None = None
        self._is_ragged = is_ragged
        self._batch, self._distance, self._formula, self._sloped = batch, distance, formula, sloped
        self._parameters = tuple(parameters)

    @property
    def num_anchors(self) -> int:
        """How many there are."""
        return len(self._batch.embeddings)

    @once
    def sides(self) -> Sides:
        """Who is a positive and who a negative."""
        return chosen_sides(self._batch, self._distance, narrow=self._narrow)

    @once
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs of the formula for all anchors, (n, …), differentiable."""
        with torch.set_grad_enabled(self.needs_grad):
            if self._is_whole:
                return self._whole
            return Outputs.apply(self._plan, *self._embeddings, *self._parameters)  # type: ignore[no-any-return]

    @once
    def totals(self) -> tuple[Tensor, ...]:
        """The sums of the first outputs, differentiable; there may be more, which :attr:`found` has."""
        is_told = self._is_compiled or self._is_quick
        if is_told and (torch.is_grad_enabled() or not self.needs_grad):
            return self._told_totals
        with torch.set_grad_enabled(self.needs_grad):
            if is_told:
                return self._told_totals
            if self._is_whole or "outputs" in self.__dict__:
                sums = (output.sum() for output in self.outputs[: self._sums])
                return *sums, *(output.detach() for output in self.outputs)
            plan = dataclasses.replace(self._plan, sums=self._sums)
            return Totals.apply(plan, *self._embeddings, *self._parameters)  # type: ignore[no-any-return]

    @property
    def _is_quick(self) -> bool:
        """Whether the sums are those of a small batch whose formula knows its slopes, and nothing is made yet."""
        return self._sloped is not None and "outputs" not in self.__dict__ and self._is_whole and self._splits

    @property
    def _told_totals(self) -> tuple[Tensor, ...]:
        return self._loop_totals if self._is_compiled else self._whole_totals

    @property
    def _is_compiled(self) -> bool:
        """Whether kernels compute the sums, and nothing is made yet."""
        return self._loop is not None and "outputs" not in self.__dict__ and self._fits

    @once
    def _fits(self) -> bool:
        assert self._loop is not None
        return fits(self._told, self._distance, self._parameters, self._loop.kernels)

    @property
    def _loop_totals(self) -> tuple[Tensor, ...]:
        assert self._loop is not None
        sums, self._quick = self._loop.run(Work(self._told, self._distance, self._by_torch))
        return sums

    @property
    def _by_torch(self) -> _ByTorch:
        told = self._batch, self._distance, self._formula, self._parameters
        return _ByTorch(*told, self._sloped, self._sums, self._narrow)

    @property
    def _whole_totals(self) -> tuple[Tensor, ...]:
        batch = self._batch
        plan = Plan(self._distance, self.sides, self._formula, self._sloped, sums=self._sums, is_raw=True)
        reference = None if batch.is_self else batch.reference
        sums: tuple[Tensor, ...] = WholeTotals.apply(plan, batch.embeddings, reference, *self._parameters)
        assert plan.found is not None
        self._quick = Found(plan.found)
        return sums

    @property
    def found(self) -> Sequence[Tensor]:
        """All outputs, for whoever does not differentiate them: as whoever asked first had them made."""
        if self._is_compiled or self._is_quick:
            _ = self.totals  # which are likely to be asked for too
        if self._quick is not None:
            return self._quick
        return self.totals[self._sums :] if "totals" in self.__dict__ else self.outputs

    @once
    def table(self) -> tuple[Tensor, Tensor]:
        """(n, k) the positives of each anchor, and which of them there are."""
        return self.sides.table(slice(0, self.sides.shape[0]))

    def whole(self, formula: Formula) -> tuple[Rows, tuple[Tensor, ...]]:
        """The rows of all anchors at once, and what another formula makes of them: for whoever wants every pair."""
        with torch.set_grad_enabled(self.needs_grad):
            rows = self._rows(self.matrix)
            return rows, formula(rows, *self._parameters)

    @property
    def _whole(self) -> tuple[Tensor, ...]:
        return self._formula(self._all_rows, *self._parameters)

    @property
    def _all_rows(self) -> Rows:
        masks = self.sides.masks
        if masks is None or "matrix" in self.__dict__ or not self._splits:
            return self._rows(self.matrix)
        return self.sides.split(*split(self._distance, *self._embeddings, masks))

    @once
    def _splits(self) -> bool:
        """Whether few steps do: there is something to compare, by one of nearfar's own distances, on the CPU."""
        is_own = row_distance(self._distance) and not torch.compiler.is_compiling()
        return is_own and all(self.sides.shape) and self.sides.device.type == "cpu"

    @once
    def matrix(self) -> Tensor:
        """(n, m) all distances, small for near; with one far reference where there is none."""
        with torch.set_grad_enabled(self.needs_grad):
            return self._made_matrix()

    def _made_matrix(self) -> Tensor:
        matrix = distance_matrix(self._distance, self._batch)
        # A formula may take the least of a row, so that there has to be something in it.
        if matrix.shape[1]:
            return matrix
        nothing = 0 * (self._batch.embeddings.sum() + self._batch.reference.sum())
        return matrix.new_full((len(matrix), 1), FAR) + nothing

    def _rows(self, matrix: Tensor) -> Rows:
        return self.sides.rows(matrix, slice(0, len(matrix)), in_place=False)

    @once
    def needs_grad(self) -> bool:
        """Whether anything that is asked for may be differentiated."""
        return is_differentiable(self._batch.embeddings, self._batch.reference, *self._parameters)

    @once
    def _is_whole(self) -> bool:
        return is_at_once(self._batch, self._distance)

    @once
    def _embeddings(self) -> tuple[Tensor, Tensor | None]:
        query = self._distance.maybe_normalize(self._batch.embeddings)
        return query, None if self._batch.is_self else self._distance.maybe_normalize(self._batch.reference)

    @once
    def _plan(self) -> Plan:
        return Plan(self._distance, self.sides, self._formula, self._sloped, self._is_ragged)


class _ByTorch(NamedTuple):
    """The same pass by torch, for what kernels do not give.

    Not the pass itself, which has what they gave: nobody but the cycle collector would free the two.
    """

    batch: Batch
    distance: Any
    formula: Formula
    parameters: tuple[Tensor, ...]
    sloped: SlopedFormula | None
    sums: int
    narrow: bool

    def sides(self) -> Sides:
        return chosen_sides(self.batch, self.distance, narrow=self.narrow)

    def plan(self) -> Plan:
        return Plan(self.distance, self.sides(), self.formula, self.sloped, sums=self.sums, is_raw=True)

    def outputs(self) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return RowPass(self.batch, self.distance, self.formula, self.parameters, narrow=self.narrow).outputs


def is_table_cheaper(batch: Batch) -> bool:
    """Whether a formula of each positive, of few in a class, costs less by a table of them than by masks of all."""
    n, m = batch.embeddings.shape[0], batch.reference.shape[0]
    return n * m > WIDE and batch.embeddings.device.type == "cpu" and not torch.compiler.is_compiling()


def is_at_once(batch: Batch, distance: Any) -> bool:
    """Whether a pass asks its formula once, of the rows of all anchors: what it needs of all of them it can make."""
    n, m = batch.embeddings.shape[0], batch.reference.shape[0]
    return n * m <= SMALL or not row_distance(distance) or torch.compiler.is_compiling()
