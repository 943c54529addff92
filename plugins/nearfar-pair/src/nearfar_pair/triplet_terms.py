"""The hinge of every triplet that a rule selects, summed from the matrix of distances.

For anchor a, positive p and negative n the gap is ``d(a, n) − d(a, p)``. A triplet is selected where
``lower < gap <= upper``, and costs ``margin − gap`` where that is above zero. One pass over the rows of the matrix
for each place in the list of positives gives everything a reducer asks for, and the gradient on the way:
a triplet that costs adds 1 to the coefficient of d(a, p) and takes 1 from that of d(a, n).

Every decision is made by the floating-point expression of :meth:`TripletRule.holds` and of the hinge itself
(negated where that is exact), so that ties fall as they do for triplets that are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.nn.selection import TripletRule, warn_if_many
from nearfar.nn.terms import Terms

__all__ = ["TripletTerms"]

# Elements of the buffers that are worked on: four of 512 kB stay in the second-level cache of a CPU, and on
# a GPU launching a kernel costs more than its work below this.
CPU_ELEMENTS, GPU_ELEMENTS = 2**17, 2**22


class _Hinges(NamedTuple):
    """Of each anchor: the sum of its triplets' costs, how many it has, how many cost something."""

    sums: Tensor
    counts: Tensor
    active: Tensor


class TripletTerms(Terms):
    """Hinges of the triplets of a rule; sums and counts make no triplet.

    Parameters
    ----------
    matrix
        (n, m) distances, small for near, of the batch the rule is about.
    rule
        Which triplets.
    margin
        Margin of the hinge.
    """

    kind = "triplet"

    def __init__(self, matrix: Tensor, rule: TripletRule, margin: float) -> None:
        self.num_anchors = len(matrix)
        self.labels = rule.batch.labels
        self._matrix = matrix
        self._rule = rule
        self._margin = margin

    def sum(self) -> Tensor:
        return self._hinges.sums.sum()

    def sum_positive(self) -> Tensor:
        return self.sum()  # a hinge is never negative

    def sum_by_anchor(self) -> Tensor:
        return self._hinges.sums

    def count(self) -> Tensor:
        return self._hinges.counts.sum()

    def count_by_anchor(self) -> Tensor:
        return self._hinges.counts

    def count_positive(self) -> Tensor:
        return self._hinges.active.sum()

    @property
    def values(self) -> Tensor:
        return self._material[0]

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return self._material[1]

    def blocks(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        d, batch = self._matrix, self._rule.batch
        anchors, positives = torch.where(batch.positive_mask())
        negative = batch.negative_mask()
        step = max(1, CPU_ELEMENTS // max(1, d.shape[1]))
        for start in range(0, max(1, len(anchors)), step):
            a, p = anchors[start : start + step], positives[start : start + step]
            with torch.no_grad():
                gap = d[a] - d[a, p][:, None]
                pair, n = torch.where(self._rule.holds(gap) & negative[a])
            a, p = a[pair], p[pair]
            yield torch.relu(d[a, p] - d[a, n] + self._margin), (a, p, n)

    @cached_property
    def _hinges(self) -> _Hinges:
        # Kept for whoever asks next, so with a graph even where the first to ask wants none.
        with torch.set_grad_enabled(self._matrix.requires_grad):
            return _Hinges(*_RuleHinges.apply(self._matrix, self._rule, self._margin))

    @cached_property
    def _material(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.set_grad_enabled(self._matrix.requires_grad):
            parts = list(self.blocks())
            values = torch.cat([values for values, _ in parts])
        warn_if_many(len(values))
        return values, tuple(torch.cat(column) for column in zip(*(indices for _, indices in parts), strict=True))


class _RuleHinges(torch.autograd.Function):
    """:class:`_Hinges` of a matrix of distances; the sums are differentiable.

    They are piecewise linear in the matrix, so the second derivative is that of the coefficients: zero.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, rule: TripletRule, margin: float) -> tuple[Tensor, Tensor, Tensor]:
        coefficients = torch.zeros_like(matrix) if ctx.needs_input_grad[0] else None
        hinges = _rule_hinges(matrix, rule, margin, coefficients)
        ctx.mark_non_differentiable(hinges.counts, hinges.active)
        if coefficients is not None:
            ctx.save_for_backward(coefficients)
        return hinges.sums, hinges.counts, hinges.active

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        (coefficients,) = ctx.saved_tensors
        return coefficients * grad_sums[:, None], None, None


def _rule_hinges(matrix: Tensor, rule: TripletRule, margin: float, coefficients: Tensor | None) -> _Hinges:
    """:class:`_Hinges` by slices of rows; the coefficients of the distances are added to ``coefficients``."""
    n, m = matrix.shape
    sums = torch.zeros(n, dtype=torch.float64, device=matrix.device)
    counts = torch.zeros(n, dtype=torch.int64, device=matrix.device)
    active = torch.zeros(n, dtype=torch.int64, device=matrix.device)
    if n and m:
        positives = _Positives(rule)
        step = max(1, (CPU_ELEMENTS if matrix.device.type == "cpu" else GPU_ELEMENTS) // m)
        buffers = tuple(matrix.new_empty(min(step, n), m) for _ in range(4))
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            part = None if coefficients is None else coefficients[rows]
            _add_rows(
                matrix, rows, positives, rule, margin, buffers, _Hinges(sums[rows], counts[rows], active[rows]), part
            )
    return _Hinges(sums.to(matrix.dtype), counts, active)


class _Positives:
    """The positives of each anchor as a range of the references sorted by label, for tables a few rows at a time."""

    def __init__(self, rule: TripletRule) -> None:
        labels, reference_labels = rule.batch.labels, rule.batch.reference_labels
        assert labels is not None
        assert reference_labels is not None
        self.is_self = rule.batch.is_self
        ordered, self.order = reference_labels.sort(stable=True)
        self.first = torch.searchsorted(ordered, labels)
        self.size = torch.searchsorted(ordered, labels, right=True) - self.first
        self.negatives = len(self.order) - self.size
        if self.is_self:  # an anchor has a place among its own positives, which the table leaves out
            self.own = torch.empty_like(self.order)
            self.own[self.order] = torch.arange(len(labels), device=labels.device)
            self.size = self.size - 1
        #: On a GPU this one number is waited for: how long the loop is.
        self.most = int(self.size.max())

    def table(self, rows: slice) -> tuple[Tensor, Tensor]:
        """(r, k) indices of positives, and which of them there are; the rest repeat the first."""
        # On a GPU asking for the most of these rows would be waited for.
        most = int(self.size[rows].max()) if self.size.device.type == "cpu" else self.most
        place = torch.arange(most, device=self.first.device)
        valid = place < self.size[rows, None]
        place = place + self.first[rows, None]
        if self.is_self:
            place += place >= self.own[rows, None]
        place = torch.where(valid, place, place[:, :1]).clamp_max(len(self.order) - 1)
        return self.order[place], valid


def _add_rows(
    matrix: Tensor,
    rows: slice,
    positives: _Positives,
    rule: TripletRule,
    margin: float,
    buffers: tuple[Tensor, ...],
    hinges: _Hinges,
    coefficients: Tensor | None,
) -> None:
    """Add what a few rows of the matrix hold."""
    d = matrix[rows]
    r = len(d)
    d_an, minus_gap, selected, costs = (buffer[:r] for buffer in buffers)
    # Far, but finite: what is no negative lies far away, and a positive that is not there is near, so that
    # neither ever fulfils a condition, and 0 times their cost is 0.
    far = torch.finfo(d.dtype).max / 4
    index, valid = positives.table(rows)
    if not index.shape[1]:
        return
    d_ap = d.gather(1, index)
    d_an.copy_(d)
    d_an.scatter_(1, index, torch.where(valid[:, :1], far, d_ap))
    if positives.is_self:
        d_an.diagonal(rows.start).fill_(far)
    d_ap = torch.where(valid, d_ap, -far)
    selects_all = rule.lower == -math.inf and rule.upper == math.inf
    if selects_all:
        hinges.counts.add_(positives.size[rows] * positives.negatives[rows])
    tally = torch.empty_like(d_ap)
    for k in range(index.shape[1]):
        # In place throughout: a buffer newly asked for costs more than what is done with it.
        torch.sub(d_ap[:, k : k + 1], d_an, out=minus_gap)
        if not selects_all:
            torch.ge(minus_gap, -min(rule.upper, far / 2), out=selected)
            if rule.lower > -math.inf:
                selected.mul_(torch.lt(minus_gap, -rule.lower, out=costs))
            hinges.counts.add_(selected.sum(1).long())
        violation = minus_gap.add_(margin)
        torch.gt(violation, 0, out=costs)
        if not selects_all:
            costs.mul_(selected)
        torch.sum(costs, 1, out=tally[:, k])
        if coefficients is not None:
            coefficients.sub_(costs)
        hinges.sums.add_(violation.mul_(costs).sum(1))
    hinges.active.add_(tally.sum(1, dtype=torch.float64).long())  # float32 counts to 2²⁴
    if coefficients is not None:
        coefficients.scatter_add_(1, index, tally)
