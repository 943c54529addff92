"""Who is a positive and who a negative of each anchor, a few anchors at a time.

A loss that looks at one anchor's row of distances after another sees the row in two parts: a short table of the
distances of its positives, and the row itself with everything that is no negative put :data:`FAR` away. Nothing of the
size of all pairs is ever made of booleans or of indices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn.batch import Batch
from nearfar.nn.selection import Selection
from nearfar_pair.once import once

__all__ = ["FAR", "SMALL", "PairRule", "Rows", "Sides"]

#: Where those lie that do not count: what is no negative this far away, what is no positive this near (−FAR). Finite,
#: and so is its square in float32, so that 0 times it is 0.
FAR = 1e18
#: Up to so many distances a matrix of all, with masks, costs less than a few rows after another and a table.
SMALL = 2**17
#: How many times fewer than the references positives are that are fetched one by one.
FEWER = 16
#: A table of positives that is no wider is made once; of wider ones only the part for a few anchors is.
FEW = 64


@dataclass(frozen=True, eq=False)
class Rows:
    """The distances of r anchors, small for near: a similarity is negated.

    Attributes
    ----------
    d_ap
        (r, k) distances of the positives; −FAR where an anchor has fewer.
    valid
        (r, k) boolean: which of them there are.
    d_an
        (r, m) distances of the references; FAR where one is no negative.
    anchors
        Which anchors they are, as a slice of the batch.
    positives
        (r, k) which references the positives are; where there is none, any.
    num_positives, num_negatives
        (r,) int64.
    scratch
        (r, m) memory for what one function keeps of the references for its gradient, which is taken once; or None.
    times
        (r, k) and (r, m) how often each positive and each negative was selected, 0 where there is none; None for once.
    is_wide
        Whether the table of positives has a place for each reference, in their order.
    spare
        As much memory as :attr:`scratch` once more, where there is that.
    """

    d_ap: Tensor
    valid: Tensor
    d_an: Tensor
    anchors: slice
    positives: Tensor
    num_positives: Tensor
    num_negatives: Tensor
    scratch: Tensor | None = None
    times: tuple[Tensor, Tensor] | None = None
    is_wide: bool = False
    spare: Tensor | None = None

    @property
    def d_any(self) -> Tensor | None:
        """(r, m) distances of positives and negatives, FAR where one is neither; None where they are apart.

        A gradient by these, 0 where they are far, takes the place of that by :attr:`d_an`, and that by :attr:`d_ap` is
        None then.
        """
        return None

    @property
    def d_ap_or_far(self) -> Tensor:
        """(r, k) distances of the positives; FAR where an anchor has fewer."""
        return torch.where(self.valid, self.d_ap, FAR)

    def only_positives(self, values: Tensor) -> Tensor:
        """(r, k) numbers of the positives; 0 where an anchor has fewer."""
        return torch.where(self.valid, values, 0)

    @property
    def is_negative(self) -> Tensor:
        """(r, m) boolean: which references are negatives."""
        return self.d_an != FAR

    @property
    def has_both(self) -> Tensor:
        """(r,) boolean: which anchors have a positive and a negative."""
        return (self.num_positives > 0) & (self.num_negatives > 0)


class _AllRows(Rows):
    """Those of all anchors by masks; what nobody asks for is not made."""

    def __init__(self, sides: Sides, **of_distances: Tensor) -> None:
        self.__dict__.update(of_distances, _sides=sides)

    is_wide = True

    @property
    def anchors(self) -> slice:
        return slice(0, self.__dict__["_sides"].shape[0])

    @property
    def d_any(self) -> Tensor | None:
        d: Tensor | None = self.__dict__.get("_d")
        return None if d is None else self.__dict__["_sides"].far_unless_any(d)

    @property
    def d_ap_or_far(self) -> Tensor:
        d: Tensor | None = self.__dict__.get("_d")
        return (self.d_ap if d is None else d).masked_fill(self._none, FAR)

    def only_positives(self, values: Tensor) -> Tensor:
        return values.masked_fill(self._none, 0)

    def __getattr__(self, name: str) -> Tensor:
        made = self.__dict__
        if name == "d_ap":
            found = made["_d"].masked_fill(self._none, -FAR)
        elif name == "d_an":
            found = made["_d"].masked_fill(self._same, FAR)
        else:
            found = getattr(made["_sides"], _OF_SIDES[name])
        made[name] = found
        return found  # type: ignore[no-any-return]


_OF_SIDES = {
    "_same": "_same",
    "_none": "_none",
    "valid": "_valid",
    "positives": "_every",
    "num_positives": "_positives",
    "num_negatives": "_negatives",
}


class PairRule(Selection, ABC):
    """Pairs that are told by their distance and the row it stands in, so that a loss can choose while it sums.

    Parameters
    ----------
    batch
        The batch the rule is about, with labels.
    distance
        What d is.

    Notes
    -----
    Every method gets the rows of these distances, in which everything by label counts.
    """

    def __init__(self, batch: Batch, distance: object) -> None:
        self.batch = batch
        self.distance = distance

    @abstractmethod
    def keep(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """(r, k) and (r, m) boolean: which positives and negatives are selected.

        What it says of those that do not count is not heeded.
        """

    def choose(self, rows: Rows, scratch: Tensor) -> tuple[Tensor, Tensor]:
        """The same, but 1 in ``scratch`` for each reference that is not selected, or is no negative, and 0 for others.

        Numbers, as masks cost ten times as much. A rule that knows a way without any writes it here.
        """
        keep_ap, keep_an = self.keep(rows)
        return keep_ap, scratch.copy_(keep_an & rows.is_negative).neg_().add_(1)

    def times(self, rows: Rows) -> tuple[Tensor, Tensor] | None:
        """(r, k) and (r, m) how often each is selected, 0 for what is not; None where everything is once at most."""
        return None


class Sides:
    """The positives and negatives of every anchor of a batch: by label, or those selected, each once.

    Parameters
    ----------
    batch
        Its selection, where it has one, replaces the labels. With a rule it is that of the rule.
    rule
        A rule on distances that chooses among those by label, in place of the selection.
    measured
        The distances (r, m) of anchors that the rule goes by; None where they are those of the rows.
    narrow
        Whether the table of positives is no wider than the most positives of an anchor, even where that costs more: in
        small batches, and on a GPU, which is waited for. Else it may be as wide as the reference set.

    Raises
    ------
    InputError
        There are neither labels nor a selection.
    """

    _table: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        batch: Batch,
        rule: PairRule | None = None,
        *,
        narrow: bool = False,
        measured: Callable[[slice], Tensor] | None = None,
    ) -> None:
        self.shape = batch.embeddings.shape[0], batch.reference.shape[0]
        self.device = batch.embeddings.device
        self._rule, self._measured = rule, measured
        self._is_self = batch.is_self
        self._by_label = rule is not None or batch.selection is None
        n, m = self.shape
        costs_less = self.device.type == "cpu" and n * m > SMALL and not torch.compiler.is_compiling()
        self._narrow = narrow or not self._by_label or costs_less or not m
        if self._by_label:
            if batch.labels is None or batch.reference_labels is None:
                raise InputError("labels are needed where no indices_tuple says which embeddings belong together")
            self._from_labels(batch.labels, batch.reference_labels)
        else:
            assert batch.selection is not None
            self._from_pairs(*batch.selection.pairs())
        #: How wide the table of positives is.
        self.width = max(1, int(self._positives.max()) if self._narrow and self.shape[0] else self.shape[1])

    def _from_labels(self, labels: Tensor, reference_labels: Tensor) -> None:
        if not self._narrow:
            self._same = labels.unsqueeze(1) == reference_labels
            self._none = ~self._same
            if self._is_self:  # an anchor is among its own class
                self._none.fill_diagonal_(True)
            return
        ordered, self._order = reference_labels.sort(stable=True)
        self._first = torch.searchsorted(ordered, labels)
        size = torch.searchsorted(ordered, labels, right=True) - self._first
        self._negatives = len(ordered) - size
        if self._is_self:  # an anchor has a place among its own positives, which the table leaves out
            self._own = torch.empty_like(self._order)
            self._own[self._order] = torch.arange(len(labels), device=labels.device)
            size = size - 1
        self._positives = size

    # Of masks, what few ask for: in a small batch each is a share of the whole.

    @once
    def _valid(self) -> Tensor:
        return ~self._none

    @once
    def _every(self) -> Tensor:
        return torch.arange(self.shape[1], device=self.device).expand(self.shape)

    @once
    def _positives(self) -> Tensor:
        return self._valid.sum(1)

    @once
    def _negatives(self) -> Tensor:
        return self.shape[1] - self._same.sum(1)

    def _from_pairs(self, a1: Tensor, p: Tensor, a2: Tensor, n: Tensor) -> None:
        anchors, references = self.shape
        # A pair is one number: sorted by anchor and each once.
        positive, self._chosen = (torch.unique(a * references + other) for a, other in ((a1, p), (a2, n)))
        self._order = positive % max(1, references)
        starts = torch.arange(anchors + 1, device=a1.device) * references
        bounds = torch.searchsorted(positive, starts)
        self._first, self._positives = bounds[:-1], bounds.diff()
        self._bounds = torch.searchsorted(self._chosen, starts)
        self._negatives = self._bounds.diff()

    def rows(self, d: Tensor, anchors: slice, *, in_place: bool, scratch: Tensor | None = None) -> Rows:
        """Split rows of the matrix of distances in two.

        Parameters
        ----------
        d
            (r, m) distances of these anchors, m at least 1.
        anchors
            Which they are.
        in_place
            Whether ``d`` may become :attr:`Rows.d_an`; else the parts are differentiable in ``d``.
        scratch
            As of :class:`Rows`.
        """
        rows = self._by_side(d, anchors, in_place=in_place, scratch=scratch)
        return rows if self._rule is None else self._left_by(self._rule, rows, in_place=in_place)

    def _by_side(self, d: Tensor, anchors: slice, *, in_place: bool, scratch: Tensor | None = None) -> Rows:
        """Everything by label, or all that was selected."""
        index, valid = self.table(anchors)
        d_ap = torch.where(valid, d.gather(1, index) if self._narrow else d, -FAR)
        d_an = self._far_unless_negative(d, anchors, index, valid, in_place)
        counts = self._positives[anchors], self._negatives[anchors]
        return Rows(d_ap, valid, d_an, anchors, index, *counts, scratch, is_wide=self.is_wide)

    def _left_by(self, rule: PairRule, rows: Rows, *, in_place: bool) -> Rows:
        """What a rule leaves of rows."""
        d_an = rows.d_an
        with torch.no_grad():
            seen = rows
            if self._measured is not None:
                seen = self._by_side(self._measured(rows.anchors), rows.anchors, in_place=True)
            room = torch.empty_like(d_an) if rows.scratch is None else rows.scratch
            times = rule.times(seen)
            if times is None:
                keep_ap, left = rule.choose(seen, room)
            else:
                keep_ap, left = times[0] > 0, torch.eq(times[1], 0, out=room)
            valid = rows.valid & keep_ap
            positives, negatives = valid.sum(1), d_an.shape[1] - left.sum(1).long()
        d_ap = torch.where(valid, rows.d_ap, -FAR)
        if in_place:  # what is left out goes far away, and nothing else moves
            torch.maximum(d_an, left.mul_(2 * FAR).sub_(FAR), out=d_an)
        else:
            d_an = d_an.masked_fill(left > 0, FAR)
        counts = positives, negatives
        return Rows(d_ap, valid, d_an, rows.anchors, rows.positives, *counts, rows.scratch, times, rows.is_wide)

    @property
    def masks(self) -> tuple[Tensor, Tensor] | None:
        """(n, m) boolean: which references are no positives, which no negatives; None where nobody made them."""
        return None if self._narrow or self._rule is not None else (self._none, self._same)

    def split(self, d_ap: Tensor, d_an: Tensor) -> Rows:
        """All rows, of distances (n, m) in which what :attr:`masks` say is far already."""
        return _AllRows(self, d_ap=d_ap, d_an=d_an)

    def whole(self, d: Tensor) -> Rows:
        """All rows, of distances (n, m) that nobody differentiates by, and of which those of an anchor to itself may be
        written to."""
        if self._narrow or self._rule is not None:
            return self.rows(d, slice(0, len(d)), in_place=False)
        return _AllRows(self, _d=d)

    def far_unless_any(self, d: Tensor) -> Tensor:
        """(n, m) all distances, FAR where a reference is neither a positive nor a negative; written to."""
        return d.fill_diagonal_(FAR) if self._is_self else d

    @property
    def is_wide(self) -> bool:
        """Whether the table of positives has a place for each reference, in their order."""
        return not self._narrow

    @property
    def num_positives(self) -> Tensor:
        """(n,) int64: how many positives each anchor has, before a rule chooses."""
        return self._positives

    @property
    def num_negatives(self) -> Tensor:
        """(n,) int64: how many negatives each anchor has, before a rule chooses."""
        return self._negatives

    @property
    def has_few_positives(self) -> bool:
        """Whether the positives are known without any distance, and so few that to fetch them one by one costs less
        than a pass over all rows."""
        return self._rule is None and self._narrow and FEWER * self.width <= self.shape[1]

    @property
    def has_rule(self) -> bool:
        """Whether a rule chooses among what the table has."""
        return self._rule is not None

    def table(self, anchors: slice) -> tuple[Tensor, Tensor]:
        """(r, k) the references that are positives, and which of them there are; the rest repeat the first."""
        if not self._narrow:
            valid = self._valid[anchors]
            return self._every[anchors], valid
        if self.width > FEW:
            return self._part_of_table(anchors)
        if self._table is None:
            self._table = self._part_of_table(slice(0, self.shape[0]))
        index, valid = self._table
        return index[anchors], valid[anchors]

    def _part_of_table(self, anchors: slice) -> tuple[Tensor, Tensor]:
        place = torch.arange(self.width, device=self._first.device)
        valid = place < self._positives[anchors, None]
        place = place + self._first[anchors, None]
        if self._by_label and self._is_self:
            place += place >= self._own[anchors, None]
        place = torch.where(valid, place, place[:, :1])
        if not len(self._order):
            return torch.zeros_like(place), valid
        return self._order[place.clamp_max_(len(self._order) - 1)], valid

    def _far_unless_negative(self, d: Tensor, anchors: slice, index: Tensor, valid: Tensor, in_place: bool) -> Tensor:
        if not self._by_label:
            start, stop = (int(self._bounds[i]) for i in (anchors.start, anchors.stop))
            chosen = self._chosen[start:stop] - anchors.start * d.shape[1]
            row, column = chosen // d.shape[1], chosen % d.shape[1]
            return torch.full_like(d, FAR).index_put((row, column), d[row, column])
        if not self._narrow:
            same = self._same[anchors]
            return d.masked_fill_(same, FAR) if in_place else d.masked_fill(same, FAR)
        # Where an anchor has no positive at all the table points to what is none: that keeps its distance.
        if in_place:
            d_an = d.scatter_(1, index, torch.where(valid[:, :1], FAR, d.gather(1, index)))
            if self._is_self:
                d_an.diagonal(anchors.start).fill_(FAR)
            return d_an
        none = torch.zeros_like(d, dtype=torch.bool).scatter_(1, index, valid[:, :1].expand_as(index))
        if self._is_self:
            none.diagonal(anchors.start).fill_(True)
        return d.masked_fill(none, FAR)
