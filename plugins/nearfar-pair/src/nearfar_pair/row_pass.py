"""A formula of an anchor's row of distances, for every anchor, without the matrix of all distances.

A few rows at a time are computed, put through the formula and forgotten. The gradient is either taken on the way, where
only the sum is wanted, or in the backward pass from rows that are computed once more. The formula is ordinary
differentiable torch, so that one text serves small batches and foreign distances, whose matrix is made as a whole, and
second derivatives too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.miners import same_distance
from nearfar.nn.selection import IndexSelection, distance_matrix
from nearfar_pair.again import again
from nearfar_pair.mask_sides import sides_of
from nearfar_pair.once import once
from nearfar_pair.row_distance import Gradients, RowDistance, row_distance
from nearfar_pair.rule_distance import RuleDistance
from nearfar_pair.sides import FAR, SMALL, PairRule, Rows, Sides
from nearfar_pair.sloped import Found, Sloped, SlopedFormula
from nearfar_pair.split_rows import split
from nearfar_pair.triplet_pairs import TripletPairs, Triplets, selects_all
from nearfar_pair.whole_pass import WholeTotals

__all__ = ["Formula", "Plan", "RowPass", "chosen_sides", "is_alike", "is_at_once", "measured", "rule_of", "slices"]

#: Of :class:`Rows` and parameters, tensors (r, …) whose rows depend on one anchor alone.
Formula = Callable[..., tuple[Tensor, ...]]

# Elements of a few rows: two buffers of 1 MB stay in the caches of a CPU, and with smaller ones calling torch costs
# more than is gained; on a GPU launching a kernel costs more than its work below this.
CPU_ELEMENTS, GPU_ELEMENTS = 2**18, 2**22


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
    ) -> None:
        self._sums = sums
        self._quick: Found | None = None
        self._is_ragged = is_ragged
        self._batch, self._distance, self._formula, self._sloped = batch, distance, formula, sloped
        self._parameters = tuple(parameters)
        self.sides = chosen_sides(batch, distance, narrow=narrow)

    @once
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs of the formula for all anchors, (n, …), differentiable."""
        with torch.set_grad_enabled(self.needs_grad):
            if self._is_whole:
                return self._whole
            return _Outputs.apply(self._plan, *self._embeddings, *self._parameters)  # type: ignore[no-any-return]

    @once
    def totals(self) -> tuple[Tensor, ...]:
        """The sums of the first outputs, differentiable; there may be more, which :attr:`found` has."""
        if self._is_quick and (torch.is_grad_enabled() or not self.needs_grad):
            return self._whole_totals
        with torch.set_grad_enabled(self.needs_grad):
            if self._is_quick:
                return self._whole_totals
            if self._is_whole or "outputs" in self.__dict__:
                sums = (output.sum() for output in self.outputs[: self._sums])
                return *sums, *(output.detach() for output in self.outputs)
            plan = dataclasses.replace(self._plan, sums=self._sums)
            return _Totals.apply(plan, *self._embeddings, *self._parameters)  # type: ignore[no-any-return]

    @property
    def _is_quick(self) -> bool:
        """Whether the sums are those of a small batch whose formula knows its slopes, and nothing is made yet."""
        return self._sloped is not None and "outputs" not in self.__dict__ and self._is_whole and self._splits

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
        if self._is_quick:
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
        # Kept for whoever asks next, so with a graph even where the first to ask wants none.
        tensors = (self._batch.embeddings, self._batch.reference, *self._parameters)
        # torch.compile cannot follow the question, and asks nothing of a backward pass where there is none.
        if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
            return False
        return any(tensor.requires_grad for tensor in tensors)

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


def is_at_once(batch: Batch, distance: Any) -> bool:
    """Whether a pass asks its formula once, of the rows of all anchors: what it needs of all of them it can make."""
    n, m = batch.embeddings.shape[0], batch.reference.shape[0]
    return n * m <= SMALL or not row_distance(distance) or torch.compiler.is_compiling()


def rule_of(batch: Batch) -> PairRule | None:
    """The rule that a miner selected by, as one on pairs; None where pairs or triplets were selected one by one."""
    given = batch.selection
    if given is None or isinstance(given, PairRule | IndexSelection):
        return given if isinstance(given, PairRule) else None
    return TripletPairs(given) if isinstance(given, Triplets) else None


def chosen_sides(batch: Batch, distance: Any, *, narrow: bool = False) -> Sides:
    """The positives and negatives that were selected, or all by label, for a loss on these distances."""
    rule = rule_of(batch)
    if rule is None or selects_all(batch.selection) or is_alike(rule, batch, distance):
        return sides_of(batch, rule, narrow=narrow)
    return sides_of(batch, rule, narrow=narrow, measured=RuleDistance(rule.batch, rule.distance))


def is_alike(rule: PairRule | Triplets, batch: Batch, distance: Any) -> bool:
    """Whether these distances of a batch are the ones that a rule goes by."""
    if rule.batch.is_self != batch.is_self or not same_distance(rule.distance, distance):
        return False
    return all(a is b or torch.equal(a, b) for a, b in zip(rule.batch.given, batch.given, strict=True))


def slices(sides: Sides) -> Iterator[slice]:
    """A few anchors after another."""
    return _slices(*sides.shape, sides.device)


def measured(rule: PairRule | Triplets) -> RuleDistance:
    """The distances that a rule goes by as its miner had them, whichever anchors are asked for at a time."""
    batch = rule.batch
    anchors = _slices(len(batch.embeddings), len(batch.reference), batch.embeddings.device)
    return RuleDistance(batch, rule.distance, anchors)


def _slices(n: int, m: int, device: torch.device) -> Iterator[slice]:
    elements = CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS
    step = max(1, elements // max(1, m))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


@dataclasses.dataclass(slots=True, eq=False)
class Plan:
    """What a pass does.

    Attributes
    ----------
    distance, sides, formula, sloped, is_ragged, sums
        As of :class:`RowPass`.
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

    def rows(self, distance: RowDistance, anchors: slice, buffers: tuple[Tensor, Tensor]) -> Rows:
        """The rows of these anchors, in the first of two buffers, of which the second is their scratch memory."""
        d, scratch = (buffer[: anchors.stop - anchors.start] for buffer in buffers)
        return self.sides.rows(distance.rows(anchors, d), anchors, in_place=True, scratch=scratch)

    def buffers(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Two for the rows of a few anchors; not one in two parts, as autograd would take a change of one for both."""
        first = next(self.chunks())
        size = first.stop - first.start, self.sides.shape[1]
        return like.new_empty(size), like.new_empty(size)

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


class _Pull:
    """Gradients of the embeddings and the parameters, added up a few rows at a time."""

    def __init__(self, plan: Plan, distance: RowDistance, parameters: Sequence[Tensor], needs: Sequence[bool]) -> None:
        self._plan, self._distance = plan, distance
        self._embeddings: Gradients = distance.gradients()
        self.leaves = [p.detach().requires_grad_(need) for p, need in zip(parameters, needs, strict=True)]
        self._parameters = [torch.zeros_like(p) if need else None for p, need in zip(parameters, needs, strict=True)]

    @torch.enable_grad()
    def outputs(self, rows: Rows) -> tuple[Rows, tuple[Tensor, ...]]:
        d_ap, d_an = rows.d_ap.detach().requires_grad_(), rows.d_an.detach().requires_grad_()
        rows = dataclasses.replace(rows, d_ap=d_ap, d_an=d_an)
        return rows, self._plan.formula(rows, *self.leaves)

    def add(
        self,
        rows: Rows,
        leaves: Sequence[Tensor],
        outputs: Sequence[Tensor],
        by: Sequence[Tensor | None],
        *,
        is_last: bool = True,
    ) -> None:
        """Add what comes of the gradients ``by`` the outputs, made of ``rows`` and ``leaves``."""
        used = [(o, g) for o, g in zip(outputs, by, strict=True) if g is not None and o.requires_grad]
        if not used:
            return
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        roots, by_root = zip(*used, strict=True)
        by_ap, by_an, *by_wanted = torch.autograd.grad(
            roots, [rows.d_ap, rows.d_an, *wanted], by_root, allow_unused=True, retain_graph=not is_last
        )
        rest = iter(by_wanted)
        self.take(rows, by_ap, by_an, *(next(rest) if leaf.requires_grad else None for leaf in leaves))

    @torch.no_grad()
    def take(self, rows: Rows, by_ap: Tensor | None, by_an: Tensor | None, *by_parameters: Tensor | None) -> None:
        """Add gradients by the distances of ``rows`` and by the parameters."""
        self._distance.pull(rows, by_ap, by_an, self._embeddings)
        for total, part in zip(self._parameters, by_parameters, strict=True):
            if total is not None and part is not None:
                total += part

    def finished(self) -> tuple[Tensor | None, ...]:
        return (*self._embeddings.finished(), *self._parameters)


class _Found:
    """The outputs for a few anchors after another.

    They are written where all have their place: kept one by one, they would lie between the large buffers of one turn
    and those of the next, and memory would grow by what no longer fits.
    """

    def __init__(self, plan: Plan) -> None:
        self._size = plan.sides.shape[0]
        self._is_ragged = plan.is_ragged
        self._whole: list[Tensor] = []
        self._parts: list[Sequence[Tensor]] = []

    def add(self, anchors: slice, outputs: Sequence[Tensor]) -> None:
        """Those of these anchors."""
        if self._is_ragged:
            self._parts.append(outputs)
            return
        if not self._whole:
            self._whole = [output.new_empty(self._size, *output.shape[1:]) for output in outputs]
        for whole, output in zip(self._whole, outputs, strict=True):
            whole[anchors] = output.detach()

    def outputs(self) -> tuple[Tensor, ...]:
        """All of them."""
        return tuple(map(torch.cat, zip(*self._parts, strict=True))) if self._is_ragged else tuple(self._whole)


class _Outputs(torch.autograd.Function):
    """The outputs of a formula; the backward pass computes the rows once more."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, query: Tensor, reference: Tensor | None, *parameters: Tensor) -> Any:
        distance = RowDistance(plan.distance, query, query if reference is None else reference)
        buffers = plan.buffers(query)
        found = _Found(plan)
        for anchors in plan.chunks():
            found.add(anchors, plan.formula(plan.rows(distance, anchors, buffers), *parameters))
        outputs = found.outputs()
        ctx.mark_non_differentiable(*(output for output in outputs if not output.is_floating_point()))
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        ctx.save_for_backward(query, reference, *parameters)
        return outputs

    @staticmethod
    def backward(ctx: Any, *by_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return None, *again(ctx.plan.differentiable, ctx.saved_tensors, by_output)
        query, reference, *parameters = ctx.saved_tensors
        plan: Plan = ctx.plan
        distance = RowDistance(plan.distance, query, query if reference is None else reference)
        pull = _Pull(plan, distance, parameters, ctx.needs_input_grad[3:])
        buffers = plan.buffers(query)
        for anchors in plan.chunks():
            rows, outputs = pull.outputs(plan.rows(distance, anchors, buffers))
            pull.add(rows, pull.leaves, outputs, [None if g is None else g[anchors] for g in by_output])
        return None, *pull.finished()


class _Totals(torch.autograd.Function):
    """The sums of the first outputs of a formula, whose gradients are taken at once, and all outputs."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, query: Tensor, reference: Tensor | None, *parameters: Tensor) -> Any:
        distance = RowDistance(plan.distance, query, query if reference is None else reference)
        buffers = plan.buffers(query)
        needs = ctx.needs_input_grad
        pulls = [_Pull(plan, distance, parameters, needs[3:]) for _ in range(plan.sums if any(needs) else 0)]
        found = _Found(plan)
        for anchors in plan.chunks():
            rows = plan.rows(distance, anchors, buffers)
            if not pulls:
                found.add(anchors, plan.formula(rows, *parameters))
                continue
            if plan.sloped is not None:
                sloped = plan.sloped(rows, *parameters)
                found.add(anchors, sloped.all())
                for i, pull in enumerate(pulls):
                    pull.take(rows, *sloped.pull(*(1.0 if i == j else None for j in range(plan.sums))))
                continue
            rows, outputs = pulls[0].outputs(rows)
            for pull, output in zip(pulls, outputs, strict=False):
                pull.add(rows, pulls[0].leaves, [output], [torch.ones_like(output)], is_last=pull is pulls[-1])
            found.add(anchors, outputs)
        outputs = found.outputs()
        ctx.mark_non_differentiable(*outputs)
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        # Of each sum the gradients by every input, then the inputs.
        ctx.save_for_backward(*(g for pull in pulls for g in pull.finished()), query, reference, *parameters)
        return *(output.sum() for output in outputs[: plan.sums]), *outputs

    @staticmethod
    def backward(ctx: Any, *by: Tensor | None) -> tuple[Tensor | None, ...]:
        sums: int = ctx.plan.sums
        count = len(ctx.needs_input_grad) - 1
        if torch.is_grad_enabled():
            return None, *again(ctx.plan.differentiable_sums, ctx.saved_tensors[sums * count :], by[:sums])
        found: list[Tensor | None] = [None] * count
        for i, factor in enumerate(by[:sums]):
            for j, gradient in enumerate(ctx.saved_tensors[i * count : (i + 1) * count]):
                if factor is None or gradient is None:
                    continue
                so_far = found[j]
                found[j] = gradient * factor if so_far is None else so_far.addcmul_(gradient, factor)
        return None, *found
