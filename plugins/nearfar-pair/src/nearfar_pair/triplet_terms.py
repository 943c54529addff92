"""Terms of losses that cost something of each triplet, of which none is made unless somebody asks for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.selection import IndexSelection, TripletRule, warn_if_many
from nearfar.nn.terms import MaterialTerms, Terms
from nearfar_pair import sides
from nearfar_pair.arithmetic import softplus
from nearfar_pair.chosen import by_label, is_alike, measured
from nearfar_pair.compiled.hardest import KERNELS, HardestLoop
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.tier import fits
from nearfar_pair.compiled.work import Work
from nearfar_pair.hardest_triplets import HardestCosts, HardestTriplets
from nearfar_pair.hinges import Hinges, as_it_is
from nearfar_pair.mining import choices
from nearfar_pair.once import once
from nearfar_pair.pair_distances import both_distances, pair_distances
from nearfar_pair.pair_pass import PairPass, Pairs
from nearfar_pair.row_distance import row_distance
from nearfar_pair.row_pass import RowPass
from nearfar_pair.rule_distance import RuleDistance
from nearfar_pair.sides import PairRule
from nearfar_pair.sloped import Found, Sloped, is_not_asked
from nearfar_pair.triplet_pairs import Triplets, selects_all

__all__ = ["TripletCost", "triplet_terms"]

#: Up to so many distances triplets that no row tells are made one by one.
SMALL = 2**14
#: Up to so many distances to look for the positives of an anchor in its row costs less than a table of them.
FEW = 2**13


@dataclass(frozen=True, slots=True)
class TripletCost:
    """What a triplet costs: the hinge of ``d(a, p) − d(a, n) + margin``.

    Attributes
    ----------
    margin
        In units of the distance, or of what is made of it.
    swap
        Whether d(p, n) stands in place of d(a, n) where it is less.
    smooth
        Whether softplus takes the hinge's place.
    shape
        An increasing function of d that the hinge is of; it leaves what is far beyond all distances there.
    slope
        The slope of that, also a function of d; None for that of d itself.
    """

    margin: float
    swap: bool = False
    smooth: bool = False
    shape: Callable[[Tensor], Tensor] = as_it_is
    slope: Callable[[Tensor], Tensor] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is the hinge of what two rows of distances tell."""
        return not (self.swap or self.smooth)

    def of(self, d_ap: Tensor, d_an: Tensor) -> Tensor:
        """The costs of triplets with these distances, which are broadcast."""
        return self.of_excess(self.shape(d_ap) - self.shape(d_an))

    def of_excess(self, excess: Tensor) -> Tensor:
        """The costs of triplets, of ``shape(d_ap) − shape(d_an)``."""
        violation = excess + self.margin
        return softplus(violation) if self.smooth else torch.relu(violation)

    def slope_of_excess(self, excess: Tensor) -> Tensor:
        """How fast these costs grow."""
        violation = excess + self.margin
        return violation.sigmoid() if self.smooth else (violation > 0).to(excess.dtype)


class _Summed(Terms):
    """Sums and counts by anchor from a pass, and triplets made for whoever asks for each."""

    kind = "triplet"

    def __init__(self, batch: Batch, distance: Any, cost: TripletCost) -> None:
        self.num_anchors = len(batch.embeddings)
        self.labels = batch.labels
        self._batch, self._distance, self._cost = batch, distance, cost

    def sum_positive(self) -> Tensor:
        return self.sum()  # no cost is negative

    def count(self) -> Tensor:
        return self.count_by_anchor().sum()

    @property
    def values(self) -> Tensor:
        return self._material[0]

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return self._material[1]

    @once
    def _material(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        tensors = self._batch.embeddings, self._batch.reference
        with torch.set_grad_enabled(any(tensor.requires_grad for tensor in tensors)):
            parts = list(self.blocks())
            values = torch.cat([values for values, _ in parts])
        warn_if_many(len(values))
        return values, tuple(torch.cat(column) for column in zip(*(indices for _, indices in parts), strict=True))

    def blocks(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        if _are_made(self._batch, self._distance):
            terms = _made(self._batch, self._distance, self._cost)
            yield terms.values, terms.indices
        else:
            yield from StreamedTriplets(self._batch, self._distance, self._cost).blocks()


class TripletTerms(_Summed):
    """Hinges that two rows of distances tell: all triplets of what a pass leaves, or those of an interval.

    Parameters
    ----------
    batch, distance, cost
        What is compared, by what, and what it costs.
    rule
        The interval, of this distance; None: every triplet of the pairs that the batch's selection leaves.
    """

    def __init__(self, batch: Batch, distance: Any, cost: TripletCost, rule: TripletRule | None) -> None:
        super().__init__(batch, distance, cost)
        if rule is not None:  # it is applied here; what remains is told by labels, which the batch it is about has
            batch = by_label(batch, rule.batch)
        lower, upper = (-math.inf, math.inf) if rule is None else (rule.lower, rule.upper)
        self._hinges = Hinges(cost.margin, lower, upper, cost.shape, cost.slope)
        self._told = batch
        # On a GPU a table as wide as the reference set would take more than it saves.
        self._narrow = batch.embeddings.device.type != "cpu" or not _is_small(batch, FEW)
        loop = None if cost.shape is not as_it_is else RowLoop("triplets", (cost.margin, lower, upper, 0, 0), _found)
        self._rows = RowPass(batch, distance, self._hinges, sloped=self._hinges.sloped, narrow=self._narrow, loop=loop)

    def sum(self) -> Tensor:
        return self._rows.totals[0]

    def sum_by_anchor(self) -> Tensor:
        return self._rows.outputs[0]

    @once
    def _count_by_anchor(self) -> Tensor:
        if self._hinges.selects_all:
            return self._rows.found[2]
        return choices(self._told, self._distance, self._hinges.selected, narrow=self._narrow).outputs[0]

    def count_by_anchor(self) -> Tensor:
        return self._count_by_anchor

    def count_positive(self) -> Tensor:
        return self._rows.found[1].sum()


def _found(costs: Tensor, counts: Tensor, work: Work) -> Found:
    """What :class:`~nearfar_pair.hinges.Hinges` gives."""
    torch = work.torch
    assert torch is not None

    def by_label() -> Tensor:
        sides = torch.sides()
        return sides.num_positives * sides.num_negatives

    return Found(Sloped((costs, counts), (by_label,), is_not_asked))


class StreamedTriplets(_Summed):
    """Costs of triplets for which two rows of distances are not enough: a few positive pairs with all negatives.

    Parameters
    ----------
    batch, distance, cost
        As of :class:`TripletTerms`; the distance is one of nearfar's own.
    """

    def __init__(self, batch: Batch, distance: Any, cost: TripletCost) -> None:
        super().__init__(batch, distance, cost)
        told: tuple[Triplets, RuleDistance] | None = None
        rule: object = batch.selection
        if isinstance(rule, Triplets):
            if not selects_all(rule):
                told = rule, measured(rule)
            batch = by_label(batch, rule.batch)
        self._costs = _PairCosts(distance, cost, told)
        query = distance.maybe_normalize(batch.embeddings)
        reference = query if batch.is_self else distance.maybe_normalize(batch.reference)
        self._pass = PairPass(batch, query, reference, self._costs.sums)

    def blocks(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        for values, *indices in self._pass.each(self._costs.triplets):
            yield values, tuple(indices)

    def sum(self) -> Tensor:
        return self._pass.outputs[0].sum()

    def sum_by_anchor(self) -> Tensor:
        return self._pass.outputs[0]

    def count_by_anchor(self) -> Tensor:
        return self._pass.outputs[1]

    def count_positive(self) -> Tensor:
        return self._pass.outputs[2].sum()


@dataclasses.dataclass(frozen=True, slots=True)
class _PairCosts:
    """What the triplets of a few positive pairs with all negatives cost.

    Attributes
    ----------
    distance, cost
        As of :class:`TripletTerms`.
    told
        Which triplets are selected, and the distances that this goes by; None: all of what is a negative.
    """

    distance: Any
    cost: TripletCost
    told: tuple[Triplets, RuleDistance] | None

    def sums(self, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
        """(r,) sums of the costs of each anchor's triplets, how many these are, and how many cost something."""
        costs, selected = self._costs(pairs)
        costs = costs.masked_fill(~selected, 0)
        sums = pairs.by_anchor(costs.sum(1))
        return sums, pairs.by_anchor(selected.sum(1)), pairs.by_anchor((costs > 0).sum(1))

    def _costs(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """(t, m) what each pair would cost with each reference, and which of these triplets are selected."""
        positives = pairs.positives
        d_an = self._matrix(pairs.a, pairs.reference).index_select(0, pairs.anchor)
        d_ap = d_an.gather(1, positives[:, None])
        selected = self._selected(pairs, positives)
        if self.cost.swap:
            d_an = torch.minimum(d_an, self._matrix(pairs.p, pairs.reference))
        return self.cost.of(d_ap, d_an), selected

    def triplets(self, pairs: Pairs) -> tuple[Tensor, ...]:
        """(k,) the costs of triplets, and their three indices."""
        costs, selected = self._costs(pairs)
        pair, n = torch.where(selected)
        a = pairs.anchor[pair] + pairs.rows.anchors.start
        return costs[selected], a, pairs.positives[pair], n

    def _matrix(self, query: Tensor, reference: Tensor) -> Tensor:
        matrix: Tensor = self.distance.matrix(query, reference)
        return -matrix if self.distance.is_inverted else matrix

    @torch.no_grad()
    def _selected(self, pairs: Pairs, positives: Tensor) -> Tensor:
        """(t, m) which references make a triplet with each pair."""
        negative = pairs.rows.is_negative.index_select(0, pairs.anchor)
        if self.told is None:
            return negative
        rule, distances = self.told
        d_an = distances(pairs.rows.anchors).index_select(0, pairs.anchor)
        return negative & rule.selected(d_an.gather(1, positives[:, None]), d_an, positives)


class HardestTerms(_Summed):
    """Costs of the hardest triplet of each anchor of a small batch, which is found and summed in one pass.

    Parameters
    ----------
    batch, distance, cost
        As of :class:`TripletTerms`; the cost is without ``swap``, and of the distance itself.
    """

    def __init__(self, batch: Batch, distance: Any, cost: TripletCost) -> None:
        super().__init__(batch, distance, cost)
        costs = HardestCosts(cost.of_excess, cost.slope_of_excess)
        rule = batch.selection
        assert isinstance(rule, HardestTriplets)
        loop = HardestLoop(cost.of_excess, cost.slope_of_excess)
        self._rows = RowPass(by_label(batch, rule.batch), distance, costs, sloped=costs.sloped, loop=loop)

    def sum(self) -> Tensor:
        return self._rows.totals[0]

    def sum_by_anchor(self) -> Tensor:
        return self._rows.outputs[0]

    def count_by_anchor(self) -> Tensor:
        return self._rows.found[1].long()

    def count_positive(self) -> Tensor:
        return (self._rows.found[0] > 0).sum()


def triplet_terms(batch: Batch, distance: Any, cost: TripletCost) -> Terms:
    """Terms of the costs of the selected triplets, or of all; where a rule tells them, none is made."""
    rule = batch.selection
    if isinstance(rule, HardestTriplets):
        told = by_label(batch, rule.batch)
        # By torch of large batches no second matrix, of what is differentiated by, is made.
        is_cheap = _is_small(batch, sides.SMALL) or fits(told, distance, (), KERNELS)
        is_one_pass = not cost.swap and cost.shape is as_it_is and is_cheap and is_alike(rule, batch, distance)
        return (HardestTerms if is_one_pass else _made)(batch, distance, cost)
    if cost.is_plain:
        if rule is None or selects_all(rule):
            every = rule if isinstance(rule, TripletRule) else TripletRule(batch, distance)
            return TripletTerms(batch, distance, cost, every)
        if isinstance(rule, PairRule):
            return TripletTerms(batch, distance, cost, None)
        # An interval of distances is not one of what is made of them.
        if isinstance(rule, TripletRule) and cost.shape is as_it_is and is_alike(rule, batch, distance):
            return TripletTerms(batch, distance, cost, rule)
    return (_made if _are_made(batch, distance) else StreamedTriplets)(batch, distance, cost)


def _are_made(batch: Batch, distance: Any) -> bool:
    """Whether triplets are made at once: they are few or given, or nothing tells them but their indices."""
    if _is_small(batch, SMALL) or isinstance(batch.selection, IndexSelection) or not row_distance(distance):
        return True
    return batch.selection is not None and not isinstance(batch.selection, PairRule | Triplets)


def _is_small(batch: Batch, most: int) -> bool:
    return len(batch.embeddings) * len(batch.reference) <= most or torch.compiler.is_compiling()


def _made(batch: Batch, distance: Any, cost: TripletCost) -> MaterialTerms:
    """Every triplet, one by one."""
    a, p, n = batch.triplets()
    reference = None if batch.is_self else batch.reference
    d_ap, d_an = both_distances(distance, batch.embeddings, reference, (a, p), (a, n))
    if cost.swap:
        d_an = torch.minimum(d_an, pair_distances(distance, batch.reference, None, p, n))
    values = cost.of(d_ap, d_an)
    return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings), labels=batch.labels)
