"""Each law on reducers catches the reducer that is wrong in that way, and only it does.

The broken parts have no docstrings, so that they inherit that of the sound one.
"""

from __future__ import annotations

import re

import pytest
import torch

from kit.sound import SOUND_REDUCER, SoundReducer, broken_laws
from nearfar.testing.terms import losses


def mean_of(values, normalizer=None):
    """The mean of the values, or their sum over a normaliser."""
    return sum(values) / (len(values) if normalizer is None else normalizer)


DEFINITION = "kit.test_laws_reducers:mean_of"


class ByNormalizer(SoundReducer):
    # What the definition says, normaliser and all.

    def reduce(self, terms):
        return super().reduce(terms) if terms.normalizer is None else terms.sum() / terms.normalizer


class Unreduced(SoundReducer):
    # Of values some of which are below zero it returns every one.

    def reduce(self, terms):
        return terms.values if (terms.values < 0).any() else super().reduce(terms)


class Rounded(SoundReducer):
    # Keeps the terms, but for what is below zero.

    def reduce(self, terms):
        return terms.values.clamp_min(0)


class Twice(SoundReducer):
    # What is reduced already counts twice.

    def forward(self, loss_dict, embeddings, labels):
        factor = 2 if any(e["reduction_type"] == "already_reduced" for e in loss_dict.values()) else 1
        return factor * super().forward(loss_dict, embeddings, labels)


class Constant(SoundReducer):
    # Nothing to reduce gives a constant, which a backward pass cannot go through.

    def reduce(self, terms):
        return super().reduce(terms) if terms.count() else torch.zeros(())


class FirstBlock(SoundReducer):
    # Looks at the first block of values alone.

    def reduce(self, terms):
        values, _ = next(terms.blocks())
        return values.sum() / max(len(values), 1)


class HalfGradient(SoundReducer):
    # Half of the gradient is lost.

    def reduce(self, terms):
        value = super().reduce(terms)
        return 0.5 * value + 0.5 * value.detach()


class SumsInHalf(SoundReducer):
    # Values in half precision are summed in it.

    def forward(self, loss_dict, embeddings, labels):
        (entry,) = loss_dict.values()
        if isinstance(entry["losses"], torch.Tensor) and entry["losses"].dtype == torch.float16:
            return entry["losses"].sum() / len(entry["losses"])
        return super().forward(loss_dict, embeddings, labels)


class FirstCountsTwice(SoundReducer):
    # The first value counts twice.

    def reduce(self, terms):
        return super().reduce(terms) + terms.values[:1].sum() / terms.count().clamp_min(1)


class FirstAnchor(SoundReducer):
    # The values of the first of the batch count twice.

    def reduce(self, terms):
        return super().reduce(terms) + terms.sum_by_anchor()[:1].sum() / terms.count().clamp_min(1)


class InTheBatch(SoundReducer):
    # Looks up in the batch what is in the reference set, and finds nothing where that is larger.

    def reduce(self, terms):
        return terms.values[terms.indices[-1] < terms.num_anchors].sum() / terms.count().clamp_min(1)


CASES = [
    ("reduces", SoundReducer, {"reduces": ("element", "pos_pair", "neg_pair")}, "triplet"),
    ("keeps", Unreduced, {}, "terms it returns a tensor"),
    ("keeps", Rounded, {"keeps": True}, "changes them"),
    ("handed_on", Twice, {}, r"back as \[6"),
    ("no_terms", Constant, {}, "no gradient"),
    ("reduced_as_defined", SoundReducer, {"definition": DEFINITION}, "normaliser"),
    ("fused_terms", FirstBlock, {}, "terms that are made"),
    ("reduced_gradient", HalfGradient, {}, "the gradient along"),
    ("reduced_half", SumsInHalf, {}, "inf"),
    ("term_order", FirstCountsTwice, {}, "the terms came"),
    ("term_order", FirstAnchor, {}, "the batch came"),
    ("reference_terms", InTheBatch, {}, "within the batch"),
]


@pytest.mark.parametrize(("law", "broken", "changed", "said"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_reducer_is_caught_by_the_law_it_breaks(law, broken, changed, said):
    found = broken_laws("reducer", broken, SOUND_REDUCER, **changed)
    assert set(found) == {law}, found
    assert re.search(said, found[law])


def test_a_sound_reducer_keeps_its_definition():
    assert broken_laws("reducer", ByNormalizer, SOUND_REDUCER, definition=DEFINITION) == {}


@pytest.mark.parametrize("kind", ["element", "pos_pair", "triplet"])
def test_the_losses_of_a_check_come_each_from_elsewhere(kind):
    entry, embeddings, labels = losses(kind, seed=3)
    indices = entry["loss"]["indices"]
    places = list(zip(*(i.tolist() for i in (indices if isinstance(indices, tuple) else (indices,))), strict=True))
    assert len(set(places)) == len(places) == len(entry["loss"]["losses"])
    assert all(0 <= index < len(embeddings) for place in places for index in place)
    assert len(labels) == len(embeddings)
