"""Each law about what a spec says finds the part of which it is not true, and no other law does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kit.sound import SOUND_LOSS, SOUND_MINER, SOUND_REDUCER, SoundLoss, SoundMiner, SoundReducer, broken_laws
from kit.test_laws_numbers import SOUND_CLASS_LOSS, SoundClassLoss
from nearfar import MaterialTerms


class Crashing(SoundMiner):
    """One that cannot be called."""

    def choose(self, batch, distance, loss):
        raise RuntimeError("not written yet")


def test_a_part_that_cannot_be_called_does_not_run():
    found = broken_laws("miner", Crashing, SOUND_MINER)
    assert set(found) == {"runs"}
    assert "RuntimeError: not written yet" in found["runs"]


class Disguised:
    """A class that makes reducers and is none."""

    def __new__(cls):
        return SoundReducer()


def test_a_target_that_is_a_class_is_one_of_torch_modules():
    found = broken_laws("reducer", Disguised, SOUND_REDUCER)
    assert set(found) == {"target_exists"}
    assert "none of torch modules" in found["target_exists"]


@pytest.mark.parametrize(("field", "kind"), [("definition", "loss"), ("sample", "loss")])
def test_a_definition_and_a_sample_can_be_imported(field, kind):
    found = broken_laws(kind, SoundLoss, SOUND_LOSS, only="target_exists", **{field: "nearfar.nowhere:function"})
    assert "nearfar.nowhere:function cannot be imported: ModuleNotFoundError" in found["target_exists"]


def test_what_a_spec_names_exists():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, thresholds={"margn": "negative"})
    assert set(found) == {"names_known"}
    assert "no such parameter" in found["names_known"]


@pytest.mark.parametrize("field", ["default_distance", "default_reducer"])
def test_default_parts_exist(field):
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, only="names_known", **{field: "core.meen"})
    assert "called 'core.meen'" in found["names_known"]


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ({"gradiant": "why"}, "no law about a loss is called 'gradiant'"),
        ({"produces": "a law of miners"}, "no law about a loss"),
        ({"accepts[weights]": "no such case"}, "no checks of accepts but accepts[pairs], accepts[triplets]"),
        ({"permutation": ""}, "does not say why"),
    ],
)
def test_expected_failures_are_of_checks_that_there_are(failures, said):
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, only="expected_failures", expected_failures=failures)
    assert said in found["expected_failures"]


class Unlabelled(SoundLoss):
    """Without labels, any two that stand side by side belong together."""

    def forward(self, embeddings, labels=None, indices_tuple=None, ref_emb=None, ref_labels=None):
        if labels is None and indices_tuple is None:
            labels = torch.arange(len(embeddings)) // 2
        return super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)


def test_an_input_that_is_named_is_needed():
    found = broken_laws("loss", Unlabelled, SOUND_LOSS)
    assert set(found) == {"inputs_needed"}
    assert "called without labels" in found["inputs_needed"]


class Weighted(SoundLoss):
    """One whose elements may be weighted, which no spec says."""

    def forward(self, embeddings, labels=None, indices_tuple=None, ref_emb=None, ref_labels=None, weights=None):
        value = super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        return value if weights is None else value * weights.mean()


class Preset(SoundLoss):
    """One that is weighted even when nobody asks."""

    def forward(self, embeddings, labels=None, indices_tuple=None, ref_emb=None, ref_labels=None, weight=1.0):
        return weight * super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)


@pytest.mark.parametrize(
    ("target", "named", "said"),
    [
        (Weighted, (), "a call takes weights by name, which the spec does not name an optional input"),
        (SoundLoss, ("weights",), "the spec names the optional input 'weights', and a call takes no such keyword"),
        (Preset, ("weight",), "without weight a call takes it to be 1.0; what is left out is None"),
    ],
)
def test_what_a_call_may_have_besides_is_what_is_declared(target, named, said):
    found = broken_laws("loss", target, SOUND_LOSS, optional_inputs=named)
    assert set(found) == {"optional_inputs"}
    assert said in found["optional_inputs"]


def test_optional_inputs_that_are_declared_keep_the_laws():
    assert not broken_laws("loss", Weighted, SOUND_LOSS, only="optional_inputs", optional_inputs=("weights",))


def test_what_is_accepted_is_what_is_declared():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, accepts=("pairs",))
    assert set(found) == {"accepts"}
    assert "given triplets, which the spec does not accept" in found["accepts"]


def test_a_selection_is_no_weight_where_it_is_compared():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, accepts=("pairs", "triplets", "weights"))
    assert set(found) == {"accepts"}
    assert "it compares what was selected, so take weights out of accepts" in found["accepts"]


class CountsNoNegatives(SoundClassLoss):
    # How often a sample was selected as a negative does not count.

    def forward(self, embeddings, labels=None, indices_tuple=None, *args, **kwargs):
        if indices_tuple is not None:
            a, p = indices_tuple[:2]
            indices_tuple = (a, p, p)
        return super().forward(embeddings, labels, indices_tuple, *args, **kwargs)


def test_weights_are_how_often_a_sample_was_selected():
    found = broken_laws("loss", CountsNoNegatives, SOUND_CLASS_LOSS, only="accepts")
    assert "each sample weighted by how often it was selected" in found["accepts"]
    assert not broken_laws("loss", SoundClassLoss, SOUND_CLASS_LOSS, only="accepts")


class Deaf(SoundLoss):
    """It looks at every triplet, whatever was selected."""

    def forward(self, embeddings, labels=None, indices_tuple=None, ref_emb=None, ref_labels=None):
        return super().forward(embeddings, labels, None, ref_emb, ref_labels)


def test_a_selection_is_not_ignored():
    assert "the selection is ignored" in broken_laws("loss", Deaf, SOUND_LOSS, only="accepts")["accepts"]


class HalfDeaf(SoundLoss):
    """It takes pairs from what was selected, and every negative."""

    def terms(self, batch):
        if batch.selection is None or batch.labels is None or batch.reference_labels is None:
            return super().terms(batch)
        a, p, _ = batch.triplets()
        pairs = torch.unique(torch.stack([a, p]), dim=1)
        pair, n = torch.where(batch.negative_mask()[pairs[0]])
        a, p = pairs[0][pair], pairs[1][pair]
        d = self.distance(batch.embeddings, batch.reference)
        sign = -1 if self.distance.is_inverted else 1
        values = (sign * (d[a, p] - d[a, n]) + self.margin).relu()
        return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings), labels=batch.labels)


def test_both_halves_of_a_selection_are_heeded():
    found = broken_laws("loss", HalfDeaf, SOUND_LOSS)
    assert set(found) == {"selection_honoured"}
    assert "some of the negatives" in found["selection_honoured"]


def test_a_reference_set_that_is_not_declared_is_refused():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, reference=False)
    assert set(found) == {"reference_used"}
    assert "takes no reference set" in found["reference_used"]


class Swapping(SoundLoss):
    """With ``swap``, a positive of the reference set is looked up among the batch.

    Parameters
    ----------
    swap : bool
        Whether the positive may take the anchor's place.
    """

    def __init__(self, margin: float = 0.5, swap: bool = False, *, distance=None, reducer=None):
        super().__init__(margin, distance=distance, reducer=reducer)
        self.swap = swap

    def terms(self, batch):
        if self.swap:
            _, p, _ = batch.triplets()
            batch.embeddings[p]
        return super().terms(batch)


def test_a_reference_set_is_used_in_every_variant():
    found = broken_laws("loss", Swapping, SOUND_LOSS, only="reference_used")
    assert "larger than the batch it raises IndexError" in found["reference_used"]


def test_chance_that_is_declared_shows():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, random=True)
    assert set(found) == {"chance"}
    assert "the same wherever random generators start" in found["chance"]


class Noisy(SoundLoss):
    """Each call costs a little more or less, and puts the random generator back where it was."""

    def forward(self, *args, **kwargs):
        with torch.random.fork_rng(devices=[]):
            return super().forward(*args, **kwargs) * (1 + 1e-3 * torch.rand((), dtype=torch.float64))


def test_chance_that_is_not_declared_shows():
    found = broken_laws("loss", Noisy, SOUND_LOSS)
    assert set(found) == {"chance"}
    assert "declare it random" in found["chance"]


class Unseeded(SoundLoss):
    """Draws from a generator of numpy's that nothing starts."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) * (1 + 1e-3 * float(np.random.default_rng().random()))


def test_chance_that_no_seed_governs_shows_declared_or_not():
    for random in (False, True):
        found = broken_laws("loss", Unseeded, SOUND_LOSS, random=random, only="chance")
        assert "from a generator that nothing starts" in found["chance"]


def test_an_order_that_is_declared_to_count_does():
    found = broken_laws("miner", SoundMiner, SOUND_MINER, order_dependent=True)
    assert set(found) == {"order_dependent"}
