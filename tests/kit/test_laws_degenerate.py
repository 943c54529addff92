"""Each law on degenerate batches catches the part that is wrong in that way, and only it does.

The broken parts have no docstrings, so that they inherit those of the sound ones, which keep the laws on docstrings.
"""

from __future__ import annotations

import torch

from kit.sound import (
    SOUND_BOX_LOSS,
    SOUND_LOSS,
    SOUND_MINER,
    SoundBoxLoss,
    SoundLoss,
    SoundMiner,
    broken_laws,
)
from nearfar.errors import InputError
from nearfar.nn import IndexSelection, MaterialTerms
from nearfar.testing.refusal import names_what_is_wrong
from nearfar.testing.subject import Subject


class LonelySample(SoundLoss):
    # Not a number where the batch is a single sample: the spread of one is none.

    def terms(self, batch):
        if len(batch.embeddings) > 1:
            return super().terms(batch)
        first = torch.zeros(1, dtype=torch.int64)
        return MaterialTerms("triplet", batch.embeddings.std(1) / 0 * 0, (first,) * 3, num_anchors=1)


class NeedsNegatives(SoundLoss):
    # Trips over a batch without a negative, in words that explain nothing.

    def terms(self, batch):
        if batch.labels is not None and len(batch.labels) == 6 and not batch.negative_mask().any():
            raise IndexError("max(): Expected reduction dim 0 to have non-zero size.")
        return super().terms(batch)


class RefusesOneClass(NeedsNegatives):
    # The same, said by name.

    def terms(self, batch):
        try:
            return super().terms(batch)
        except IndexError as error:
            raise InputError("the batch holds one class, so no sample has a negative") from error


class FirstForWant(SoundMiner):
    # Where no positive is to be had, the first sample is taken for one: a maximum over nothing.

    def choose(self, batch, distance, loss):
        if batch.is_self and len(batch.embeddings) == 4 and not batch.positive_mask().any():
            a = torch.arange(1, 4)
            return IndexSelection((a, a - 1, a % 3))
        return super().choose(batch, distance, loss)


class OneIsNone(SoundLoss):
    # One pair of each sort counts as none.

    def terms(self, batch):
        terms = super().terms(batch)
        if batch.selection is not None and all(len(i) == 1 for i in batch.selection.indices()):
            nothing = terms.values[:0]
            return MaterialTerms("triplet", nothing, (batch.selection.indices()[0][:0],) * 3, num_anchors=0)
        return terms


class NothingIsAll(SoundLoss):
    # A selection of nothing counts as no selection.

    def forward(self, embeddings, labels=None, indices_tuple=None, ref_emb=None, ref_labels=None):
        if isinstance(indices_tuple, tuple) and not any(len(index) for index in indices_tuple):
            indices_tuple = None
        return super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)


class NarrowTable(SoundLoss):
    # Has room for few gaps beyond 1.8, where the greatest is 2.

    def terms(self, batch):
        a, p, n = batch.triplets()
        d = self.distance(batch.embeddings, batch.reference)
        if batch.selection is None and len(a) and (d[a, p] - d[a, n] > 1.8).double().mean() > 0.4:
            raise IndexError("index 10 is out of bounds for dimension 0 with size 10")
        return super().terms(batch)


def test_a_value_that_is_no_number_for_a_single_sample_is_found():
    found = broken_laws("loss", LonelySample, SOUND_LOSS)
    assert set(found) == {"batches"}
    assert "one sample: the value is nan" in found["batches"]


def test_an_error_that_does_not_name_what_is_wrong_is_found_and_one_that_does_is_kept():
    found = broken_laws("loss", NeedsNegatives, SOUND_LOSS)
    assert set(found) == {"batches"}
    assert "IndexError" in found["batches"]
    assert broken_laws("loss", RefusesOneClass, SOUND_LOSS) == {}


def test_a_selection_of_a_positive_that_is_none_is_found():
    found = broken_laws("miner", FirstForWant, SOUND_MINER)
    assert set(found) == {"batches"}
    assert "as a positive, which it is not" in found["batches"]


def test_one_pair_taken_for_none_is_found():
    assert set(broken_laws("loss", OneIsNone, SOUND_LOSS)) == {"one_pair"}


def test_an_empty_selection_taken_for_everything_is_found():
    assert set(broken_laws("loss", NothingIsAll, SOUND_LOSS)) == {"empty_selection"}


def test_a_table_that_the_worst_batch_overflows_is_found():
    found = broken_laws("loss", NarrowTable, SOUND_LOSS, distances=("core.euclidean",))
    assert set(found) == {"extremes"}
    assert "positives opposite each other" in found["extremes"]


def test_an_error_is_by_name_where_it_is_of_the_right_type_and_speaks_of_an_input():
    from nearfar.discovery import Selector, discover
    from nearfar.registry import Registry
    from nearfar.spec import LossSpec

    registry = Registry(discover(selector=Selector(allow=frozenset({"core"}))))
    subject = Subject(registry.register(LossSpec(**SOUND_BOX_LOSS), SoundBoxLoss), registry)
    assert names_what_is_wrong(subject, InputError("target_boxes is empty"))
    assert names_what_is_wrong(subject, ValueError("no box has an area"))
    assert not names_what_is_wrong(subject, ValueError("not enough values to unpack"))
    assert not names_what_is_wrong(subject, IndexError("there is no box 3"))


class SpoiledByNothing(SoundLoss):
    # A running mean to which an empty batch adds 0 / 0, and which weighs what comes after.

    def __init__(self, margin=0.5, *, distance=None, reducer=None):
        super().__init__(margin, distance=distance, reducer=reducer)
        self.register_buffer("length", torch.ones(()))

    def terms(self, batch):
        terms = super().terms(batch)
        if self.training and not len(batch.embeddings):
            self.length.mul_(torch.nan)
        values = terms.values * self.length.clone()
        return MaterialTerms("triplet", values, terms.indices, num_anchors=terms.num_anchors, labels=terms.labels)


def test_what_an_empty_batch_spoils_for_good_is_found():
    found = broken_laws("loss", SpoiledByNothing, SOUND_LOSS)
    assert set(found) == {"aftermath"}
    assert "after a batch that is empty" in found["aftermath"]


class SpoiledByOverflow(SoundLoss):
    # A running mean of lengths that takes any in, and weighs what comes after.

    def __init__(self, margin=0.5, *, distance=None, reducer=None):
        super().__init__(margin, distance=distance, reducer=reducer)
        self.register_buffer("length", torch.ones(()))

    def terms(self, batch):
        terms = super().terms(batch)
        values = terms.values * (self.length / self.length)
        if self.training and len(batch.embeddings):
            self.length.lerp_(batch.embeddings.detach().norm(dim=1).mean().to(self.length), 0.1)
        return MaterialTerms("triplet", values, terms.indices, num_anchors=terms.num_anchors, labels=terms.labels)


def test_what_a_batch_that_is_not_finite_spoils_for_good_is_found():
    found = broken_laws("loss", SpoiledByOverflow, SOUND_LOSS)
    assert set(found) == {"aftermath"}
    assert "in a row of embeddings)" in found["aftermath"]


class SpoiledByHuge(SpoiledByOverflow):
    # What is infinite is left out, what nearly is gets squared later.

    def terms(self, batch):
        terms = SoundLoss.terms(self, batch)
        values = terms.values * (self.length.square() / self.length.square())
        if self.training and (mean := batch.embeddings.detach().abs().sum(1).nanmean()).isfinite():
            self.length.lerp_(mean.to(self.length), 0.1)
        return MaterialTerms("triplet", values, terms.indices, num_anchors=terms.num_anchors, labels=terms.labels)


def test_what_a_batch_that_is_hardly_finite_spoils_for_good_is_found():
    found = broken_laws("loss", SpoiledByHuge, SOUND_LOSS)
    assert set(found) == {"aftermath"}
    assert "a batch that is hardly finite (1e+200 in a row of embeddings)" in found["aftermath"]


class StopsAtNaN(SoundLoss):
    # A bin of each distance, which what is no number has none of: the index is −2⁶³.

    def terms(self, batch):
        terms = super().terms(batch)
        bins = terms.values.detach().long()
        torch.zeros(2**20, device=bins.device).index_select(0, bins.clamp_max(2**20 - 1))
        return terms


def test_what_stops_in_the_middle_of_a_batch_that_is_not_finite_is_found():
    found = broken_laws("loss", StopsAtNaN, SOUND_LOSS)
    assert set(found) == {"aftermath"}
    assert "a batch that is not finite (nan in a row of embeddings)" in found["aftermath"]
    assert "index out of range" in found["aftermath"]
