"""A formula of every positive pair and all that stands against it, without a table of pairs by negatives.

For what a row of distances of the anchor does not tell: the distances of the positive to the negatives, or of the sum
of both. The pairs of a few anchors at a time are computed and forgotten, and once more in the backward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.precision import in_full_precision
from nearfar_pair.again import again, is_differentiable
from nearfar_pair.chosen import measured, rule_of
from nearfar_pair.mask_sides import sides_of
from nearfar_pair.once import once
from nearfar_pair.sides import PairRule, Rows, Sides

__all__ = ["PairPass", "Pairs"]

#: Elements of a few pairs by all references.
CPU_ELEMENTS, GPU_ELEMENTS = 2**17, 2**23


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The t positive pairs of r anchors.

    Attributes
    ----------
    rows
        Who is a positive and who a negative of these anchors; its distances are 0, or far.
    anchor, place
        (t,) which of the anchors a pair is of, and at which place of their table of positives its other end is.
    a, p
        (r, d) the anchors, and (t, d) the positive of each pair.
    reference
        (m, d).
    """

    rows: Rows
    anchor: Tensor
    place: Tensor
    a: Tensor
    p: Tensor
    reference: Tensor

    @property
    def positives(self) -> Tensor:
        """(t,) which references the positives are."""
        return self.rows.positives[self.anchor, self.place]

    def table(self, values: Tensor) -> Tensor:
        """(r, k) numbers of pairs in the places of their positives, 0 where there is none."""
        return values.new_zeros(self.rows.valid.shape).index_put((self.anchor, self.place), values)

    def by_anchor(self, values: Tensor) -> Tensor:
        """(r,) the sums of each anchor's pairs."""
        return values.new_zeros(len(self.a)).index_add(0, self.anchor, values)


#: Of :class:`Pairs`, tensors (r, …) whose rows depend on one anchor and its pairs alone.
PairFormula = Callable[[Pairs], tuple[Tensor, ...]]


class PairPass:
    """A formula applied to the pairs of every anchor of a batch.

    Parameters
    ----------
    batch
        Who is compared; its selection says which pairs and which negatives there are.
    query, reference
        (n, d) and (m, d) what the formula is of, such as normalised embeddings.
    formula
        Called with :class:`Pairs`.
    rule
        Which pairs there are, in place of the selection's own.
    """

    def __init__(
        self, batch: Batch, query: Tensor, reference: Tensor, formula: PairFormula, *, rule: PairRule | None = None
    ) -> None:
        rule = rule_of(batch) if rule is None else rule
        distances = None if rule is None else measured(rule)
        self.sides: Sides = sides_of(batch, rule, narrow=True, measured=distances)
        # Something has to be in a row, of which there may be asked the least.
        self._reference = reference if len(reference) else query.new_zeros(1, query.shape[1])
        self._query, self.formula = query, formula

    @once
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs of the formula for all anchors, (n, …), differentiable."""
        n, m = self.sides.shape
        with torch.set_grad_enabled(is_differentiable(self._query, self._reference)):
            if n * m * self.sides.width <= CPU_ELEMENTS or not n:
                return self.every(self._query, self._reference)
            # A copy, as what keeps its own outputs by their graph would be freed by nobody but the cycle collector.
            return _Outputs.apply(copy.copy(self), self._query, self._reference)  # type: ignore[no-any-return]

    @property
    def num_anchors(self) -> int:
        """How many there are."""
        return len(self._query)

    @once
    def table(self) -> tuple[Tensor, Tensor]:
        """(n, k) the positives of each anchor, and which of them there are before a rule chooses."""
        return self.sides.table(slice(0, self.sides.shape[0]))

    def each(self, formula: PairFormula) -> Iterator[tuple[Tensor, ...]]:
        """What another formula makes of a few anchors after another, lists as long as they come out; differentiable.

        The graph keeps none of it: the backward pass computes it once more.
        """
        for anchors in self.chunks():
            yield _Each.apply(self, formula, anchors, self._query, self._reference)

    def every(self, query: Tensor, reference: Tensor) -> tuple[Tensor, ...]:
        """The outputs for all anchors at once, in ordinary torch."""
        return self.formula(self.pairs(slice(0, len(query)), query, reference))

    def pairs(self, anchors: slice, query: Tensor, reference: Tensor) -> Pairs:
        """The pairs of these anchors."""
        nothing = query.new_zeros(anchors.stop - anchors.start, len(reference))
        rows = self.sides.rows(nothing, anchors, in_place=True)
        anchor, place = torch.where(rows.valid)
        p = reference.index_select(0, rows.positives[anchor, place])
        return Pairs(rows, anchor, place, query[anchors], p, reference)

    def chunks(self) -> Iterator[slice]:
        """A few anchors after another."""
        n, m = self.sides.shape
        elements = CPU_ELEMENTS if self.sides.device.type == "cpu" else GPU_ELEMENTS
        step = max(1, elements // (max(1, m) * self.sides.width))
        return (slice(start, min(start + step, n)) for start in range(0, n, step))


class _Outputs(torch.autograd.Function):
    """The outputs of a formula; the backward pass computes the pairs once more."""

    @staticmethod
    def forward(ctx: Any, work: PairPass, query: Tensor, reference: Tensor) -> Any:
        found: list[Tensor] = []
        for anchors in work.chunks():
            parts = work.formula(work.pairs(anchors, query, reference))
            if not found:
                found = [part.new_empty(len(query), *part.shape[1:]) for part in parts]
            for whole, part in zip(found, parts, strict=True):
                whole[anchors] = part
        ctx.mark_non_differentiable(*(output for output in found if not output.is_floating_point()))
        ctx.set_materialize_grads(False)
        ctx.work = work
        ctx.save_for_backward(query, reference)
        return tuple(found)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *by_output: Tensor | None) -> tuple[Tensor | None, ...]:
        query, reference = ctx.saved_tensors
        work: PairPass = ctx.work
        if torch.is_grad_enabled():
            return None, *again(work.every, (query, reference), by_output)
        totals = torch.zeros_like(query), torch.zeros_like(reference)
        for anchors in work.chunks():
            pairs = work.pairs(anchors, query, reference)
            _pull(work.formula, pairs, [None if g is None else g[anchors] for g in by_output], totals)
        return None, *totals


class _Each(torch.autograd.Function):
    """What a formula makes of a few anchors; the backward pass computes it once more."""

    @staticmethod
    def forward(
        ctx: Any, work: PairPass, formula: PairFormula, anchors: slice, query: Tensor, reference: Tensor
    ) -> tuple[Tensor, ...]:
        outputs = formula(work.pairs(anchors, query, reference))
        ctx.mark_non_differentiable(*(output for output in outputs if not output.is_floating_point()))
        ctx.set_materialize_grads(False)
        ctx.given = work, formula, anchors
        ctx.save_for_backward(query, reference)
        return outputs

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *by_output: Tensor | None) -> tuple[Tensor | None, ...]:
        query, reference = ctx.saved_tensors
        work, formula, anchors = ctx.given
        if torch.is_grad_enabled():
            made = again(lambda q, r: formula(work.pairs(anchors, q, r)), (query, reference), by_output)
            return None, None, None, *made
        totals = torch.zeros_like(query), torch.zeros_like(reference)
        _pull(formula, work.pairs(anchors, query, reference), by_output, totals)
        return None, None, None, *totals


def _pull(
    formula: PairFormula, pairs: Pairs, by_output: Sequence[Tensor | None], totals: tuple[Tensor, Tensor]
) -> None:
    """Add to the gradients of the query and the reference what comes of those of a formula of some anchors' pairs."""
    leaves = [x.detach().requires_grad_() for x in (pairs.a, pairs.p, pairs.reference)]
    with torch.enable_grad():
        outputs = formula(Pairs(pairs.rows, pairs.anchor, pairs.place, *leaves))
    used = [(o, g) for o, g in zip(outputs, by_output, strict=True) if g is not None and o.requires_grad]
    roots, by_root = zip(*used, strict=True)
    by_a, by_p, by_reference = torch.autograd.grad(roots, leaves, by_root, materialize_grads=True)
    to_query, to_reference = totals
    to_query[pairs.rows.anchors] += by_a
    to_reference.index_add_(0, pairs.positives, by_p).add_(by_reference)
