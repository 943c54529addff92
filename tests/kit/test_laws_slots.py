"""Each law about reducers and distances finds the part that ignores them, and no other law does."""

from __future__ import annotations

import pytest
import torch

from kit.sound import SOUND_LOSS, SOUND_MINER, SoundLoss, SoundMiner, broken_laws
from nearfar import MaterialTerms
from nearfar.errors import ArgumentError
from nearfar.nn.distances import Cosine, Euclidean


def test_terms_that_are_declared_are_handed_out():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, emits=("triplet", "neg_pair"))
    assert set(found) == {"emits"}
    assert "declares neg_pair terms, and none is ever handed" in found["emits"]


def test_terms_that_are_handed_out_are_declared():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, emits=("element",), only="emits")
    assert "is handed triplet terms, and the spec declares element" in found["emits"]


class Turned(SoundLoss):
    """It says of each positive that it is the negative, and the other way round."""

    def terms(self, batch):
        terms = super().terms(batch)
        a, p, n = terms.indices
        return MaterialTerms("triplet", terms.values, (a, n, p), num_anchors=terms.num_anchors, labels=terms.labels)


def test_indices_say_where_a_value_came_from():
    found = broken_laws("loss", Turned, SOUND_LOSS)
    assert set(found) == {"emits"}
    assert "a positive of another class" in found["emits"]


class OwnPositive(SoundLoss):
    """It takes a sample for a positive of itself too."""

    def terms(self, batch):
        a, p, n = batch.triplets()
        if batch.selection is None and batch.is_self and len(a):
            first, other = torch.where(batch.labels[:, None] != batch.labels)
            a, p, n = torch.cat([a, first]), torch.cat([p, first]), torch.cat([n, other])
        d = self.distance(batch.embeddings, batch.reference)
        sign = -1 if self.distance.is_inverted else 1
        values = (sign * (d[a, p] - d[a, n]) + self.margin).relu()
        return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings), labels=batch.labels)


def test_a_sample_is_not_its_own_positive():
    found = broken_laws("loss", OwnPositive, SOUND_LOSS, only="emits")
    assert "a triplet term has a sample for its own positive" in found["emits"]


class Displaced(SoundLoss):
    """It numbers its anchors from 100 on."""

    def terms(self, batch):
        terms = super().terms(batch)
        indices = (terms.indices[0] + 100, *terms.indices[1:])
        return MaterialTerms("triplet", terms.values, indices, num_anchors=terms.num_anchors)


def test_indices_are_of_the_batch():
    found = broken_laws("loss", Displaced, SOUND_LOSS, only="emits")
    assert "from 100 to 111, and the batch has 12 elements" in found["emits"]


class Stubborn(SoundLoss):
    """It takes the mean, whatever reducer it has."""

    def reduce(self, terms, inputs, labels):
        return terms.sum() / terms.count().clamp_min(1)


def test_a_reducer_is_not_ignored():
    found = broken_laws("loss", Stubborn, SOUND_LOSS)
    assert set(found) == {"reducer_honoured"}
    assert "is never asked" in found["reducer_honoured"]


class Averages(SoundLoss):
    """It hands out the mean of its terms in place of each."""

    def terms(self, batch):
        terms = super().terms(batch)
        values = terms.values.mean().expand_as(terms.values) if len(terms.values) else terms.values
        return MaterialTerms("triplet", values, terms.indices, num_anchors=terms.num_anchors, labels=terms.labels)


def test_terms_are_not_averaged_before_the_reducer():
    found = broken_laws("loss", Averages, SOUND_LOSS)
    assert set(found) == {"reducer_honoured"}
    assert "they were averaged before the reducer" in found["reducer_honoured"]


class Doubling(SoundLoss):
    """It doubles what it hands out, save to reducers that it does not know."""

    def reduce(self, terms, inputs, labels):
        value = super().reduce(terms, inputs, labels)
        return value * 2 if type(self.reducer).__name__ == "Sum" else value


def test_a_sum_is_the_sum_of_the_terms():
    assert "add up to" in broken_laws("loss", Doubling, SOUND_LOSS, only="reducer_honoured")["reducer_honoured"]


def test_the_default_reducer_is_the_one_declared():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, default_reducer="core.sum")
    assert set(found) == {"default_reducer"}


def test_the_default_distance_is_the_one_declared():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, default_distance="core.squared_euclidean")
    assert set(found) == {"default_distance"}


class Euclids(SoundLoss):
    """It works on Euclidean distance, whatever it is given."""

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        super().__init__(margin, distance=Euclidean(), reducer=reducer)


def test_a_distance_is_not_ignored():
    found = broken_laws("loss", Euclids, SOUND_LOSS)
    assert set(found) == {"distance_honoured"}
    assert "a distance of its own" in found["distance_honoured"]


class ReadsTheSign(SoundLoss):
    """Euclidean distance, or its negative where it is given a similarity, whatever similarity that is."""

    def terms(self, batch):
        kept = self.distance
        self.distance = Euclidean()
        terms = super().terms(batch)
        self.distance = kept
        sign = -1 if kept.is_inverted else 1
        return MaterialTerms("triplet", sign * terms.values, terms.indices, num_anchors=terms.num_anchors)


class ReadsTheScale(SoundLoss):
    """Euclidean distance, normalised where the distance that it is given normalises."""

    def terms(self, batch):
        kept = self.distance
        self.distance = Euclidean(normalize=kept.normalize_embeddings)
        terms = super().terms(batch)
        self.distance = kept
        return terms


@pytest.mark.parametrize("target", [ReadsTheSign, ReadsTheScale])
def test_what_a_distance_says_of_itself_does_not_stand_for_its_values(target):
    found = broken_laws("loss", target, SOUND_LOSS)
    assert "a distance of its own" in found.pop("distance_honoured")
    assert set(found) <= {"default_distance", "similarity"}


class HalfDeaf(SoundLoss):
    """It asks the distance for positives, and takes cosines of its own for negatives."""

    def terms(self, batch):
        a, p, n = batch.triplets()
        d = self.distance(batch.embeddings, batch.reference)
        unit = torch.nn.functional.normalize
        near = unit(batch.embeddings) @ unit(batch.reference).T
        sign = -1 if self.distance.is_inverted else 1
        values = (sign * d[a, p] + near[a, n] + self.margin).relu()
        return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings), labels=batch.labels)


def test_a_distance_is_asked_for_everything():
    found = broken_laws("loss", HalfDeaf, SOUND_LOSS, default_distance="")
    assert set(found) == {"distance_honoured"}
    assert "does not measure by the distance" in found["distance_honoured"]


class Choosy(SoundLoss):
    """Any distance, it says, and means those that it has heard of."""

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        if distance is not None and not type(distance).__module__.startswith(("nearfar.nn", "pytorch_metric")):
            raise ArgumentError("distance is none that is known here")
        super().__init__(margin, distance=distance, reducer=reducer)


def test_any_distance_means_any():
    found = broken_laws("loss", Choosy, SOUND_LOSS)
    assert set(found) == {"distance_honoured"}
    assert "none that is known here (line" in found["distance_honoured"]


class OwnCosine(SoundMiner):
    """The nearest negative by a cosine of its own, where it is given a similarity."""

    def choose(self, batch, distance, loss):
        return super().choose(batch, Cosine() if distance.is_inverted else distance, loss)


def test_a_similarity_is_not_ignored_either():
    found = broken_laws("miner", OwnCosine, SOUND_MINER, only="distance_honoured")
    assert "on a similarity that" in found["distance_honoured"]


class NamedEuclids(SoundLoss):
    """Euclidean distance or a cosine of its own, by the sign of what it is given."""

    def terms(self, batch):
        kept = self.distance
        self.distance = Cosine() if kept.is_inverted else Euclidean()
        terms = super().terms(batch)
        self.distance = kept
        return terms


def test_distances_with_one_sign_are_told_apart():
    names = ("core.euclidean", "core.squared_euclidean", "core.cosine")
    found = broken_laws("loss", NamedEuclids, SOUND_LOSS, distances=names, only="distance_honoured")
    assert "it does the same" in found["distance_honoured"]
    assert not broken_laws("loss", SoundLoss, SOUND_LOSS, distances=names, only="distance_honoured")


def test_a_distance_that_is_not_declared_is_refused():
    found = broken_laws("miner", SoundMiner, SOUND_MINER, distances=())
    assert set(found) == {"distance_honoured"}
    assert "its constructor takes one, and it is used" in found["distance_honoured"]


def test_what_goes_by_rank_alone_shows_on_embeddings_of_another_length():
    """The nearest negative is the same on each of these, as long as all embeddings have one length."""
    names = ("core.euclidean", "core.squared_euclidean", "core.cosine")
    assert not broken_laws("miner", SoundMiner, SOUND_MINER, distances=names, only="distance_honoured")


class ReducesItself(torch.nn.Module):
    """A module of somebody else's, which knows nothing of reducers."""

    def forward(self, embeddings, labels=None, indices_tuple=None, ref_emb=None, ref_labels=None):
        apart = labels[:, None] != labels
        d = (embeddings[:, None] - embeddings).square().sum(2)
        return (d * ~apart).sum() / d.sum().clamp_min(1e-9)


def test_what_reduces_itself_is_told_how_to_say_so():
    spec = {"name": "own", "target": "somewhere:Else", "summary": "Within by all.", "emits": ("pos_pair",)}
    found = broken_laws("loss", ReducesItself, spec, default_reducer="core.mean")
    assert 'emits=("already_reduced",)' in found["reducer_honoured"]
    assert not {"default_reducer", "pml_reducers"} & {*found}
