"""Each law about reducers and distances finds the part that ignores them, and no other law does."""

from __future__ import annotations

from kit.sound import SOUND_LOSS, SOUND_MINER, SoundLoss, SoundMiner, broken_laws
from nearfar import MaterialTerms
from nearfar.nn.distances import Euclidean


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
    assert "it does the same" in found["distance_honoured"]


def test_a_distance_that_is_not_declared_is_refused():
    found = broken_laws("miner", SoundMiner, SOUND_MINER, distances=())
    assert set(found) == {"distance_honoured"}
    assert "its constructor takes one, and it is used" in found["distance_honoured"]


def test_what_goes_by_rank_alone_shows_on_embeddings_of_another_length():
    """The nearest negative is the same on each of these, as long as all embeddings have one length."""
    names = ("core.euclidean", "core.squared_euclidean", "core.cosine")
    assert not broken_laws("miner", SoundMiner, SOUND_MINER, distances=names, only="distance_honoured")
