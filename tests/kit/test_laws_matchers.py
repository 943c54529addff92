"""Each law on matchers, and on miners of elements, catches the one that is wrong in that way, and only it does.

The broken parts have no docstrings, so that they inherit that of the sound one.
"""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from kit.sound import SOUND_ELEMENT_MINER, SOUND_MATCHER, SoundElementMiner, SoundMatcher, broken_laws
from nearfar.nn.matching import Matches
from nearfar.nn.terms import MaterialTerms


def smallest_covering(pred_boxes, target_boxes, distance=None):
    """Each prediction with the smallest target that covers its first corner."""
    found = []
    for i, box in enumerate(pred_boxes):
        covers = [j for j, t in enumerate(target_boxes) if t[0] <= box[0] <= t[2] and t[1] <= box[1] <= t[3]]
        if covers:
            areas = [(c - a) * (d - b) for a, b, c, d in (target_boxes[j] for j in covers)]
            found.append((i, covers[areas.index(min(areas))]))
    return found


def above_the_mean(values, positives, groups=None):
    """The places of the values above the mean of their group."""
    groups = groups or [0] * len(values)
    means = {g: sum(v for v, own in zip(values, groups, strict=True) if own == g) / groups.count(g) for g in groups}
    return [i for i, value in enumerate(values) if value > means[groups[i]]]


class ShortPlaces(SoundMatcher):
    # Indices of 32 bits.

    def match(self, *inputs, **options):
        made = super().match(*inputs, **options)
        return dataclasses.replace(made, predictions=made.predictions.int())


class IgnoredToo(SoundMatcher):
    # What is matched is called ignored as well.

    def match(self, *inputs, **options):
        made = super().match(*inputs, **options)
        return dataclasses.replace(made, ignored=made.predictions)


class AllButTheFirst(SoundMatcher):
    # The first prediction is left out, whatever it is.

    def match(self, *inputs, **options):
        made = super().match(*inputs, **options)
        kept = made.predictions > 0
        return dataclasses.replace(
            made, predictions=made.predictions[kept], targets=made.targets[kept], quality=made.quality[kept]
        )


class OneImage(SoundMatcher):
    # Groups are taken, and not looked at.

    def match(self, *inputs, **options):
        return super().match(*inputs)


class Greatest(SoundMatcher):
    # Of several targets the greatest, where the definition has the smallest.

    def match(self, pred, target=None, **options):
        if target is None:
            return super().match(pred)
        middle = (target[:, :2] + target[:, 2:]) / 2
        turned = 1 / (target[:, 2:] - target[:, :2]).clamp_min(1e-3)
        made = super().match(pred, target, **options)
        corner = pred[made.predictions][:, None, :2]
        covers = ((target[:, :2] <= corner) & (corner <= target[:, 2:])).all(2)
        if "pred_groups" in options:
            covers &= options["pred_groups"][made.predictions][:, None] == options["target_groups"]
        own = torch.where(covers, turned.prod(1), torch.inf).argmin(1) if len(middle) else made.targets
        return dataclasses.replace(made, targets=own)


class Attached(SoundMatcher):
    # How near a box is keeps its history.

    def match(self, *inputs, **options):
        made = super().match(*inputs, **options)
        return dataclasses.replace(made, quality=inputs[0][made.predictions].sum(1))


class Reweighted(SoundElementMiner):
    # What is kept is doubled.

    def forward(self, named):
        made = super().forward(named)
        return {
            name: MaterialTerms(
                terms.kind, 2 * terms.values, terms.indices, num_anchors=terms.num_anchors, weights=terms.weights,
                normalizer=terms.normalizer, labels=terms.labels, groups=terms.groups, positives=terms.positives,
            )
            for name, terms in made.items()
        }  # fmt: skip


class Forgetful(SoundElementMiner):
    # The normaliser and the groups are lost.

    def forward(self, named):
        return {
            name: MaterialTerms(terms.kind, terms.values, terms.indices, num_anchors=terms.num_anchors)
            for name, terms in super().forward(named).items()
        }


class Ungrouped(SoundElementMiner):
    # One mean for all groups.

    def above(self, terms):
        return terms.values > terms.values.mean()


class EverySecond(SoundElementMiner):
    # By place rather than by value.

    def above(self, terms):
        return torch.arange(len(terms.values), device=terms.values.device) % 2 == 0


MEAN = {"definition": "kit.test_laws_matchers:above_the_mean"}
MATCHING = {"definition": "kit.test_laws_matchers:smallest_covering", "distances": ()}
CASES = [
    ("matched", ShortPlaces, SOUND_MATCHER, {}, "int64"),
    ("matched", IgnoredToo, SOUND_MATCHER, {}, "matched and ignored"),
    ("matched_in_any_order", AllButTheFirst, SOUND_MATCHER, {}, "another order"),
    ("matched_in_groups", OneImage, SOUND_MATCHER, {}, "two images at once"),
    ("matched_as_defined", Greatest, SOUND_MATCHER, MATCHING, "by its definition"),
    ("matching_untouched", Attached, SOUND_MATCHER, {}, "graph"),
    ("kept", Reweighted, SOUND_ELEMENT_MINER, {}, "kept"),
    ("kept", Forgetful, SOUND_ELEMENT_MINER, {}, "weight|known"),
    (
        "kept_as_defined",
        Ungrouped,
        SOUND_ELEMENT_MINER,
        {"definition": "kit.test_laws_matchers:above_the_mean"},
        "by its",
    ),
    ("kept_in_any_order", EverySecond, SOUND_ELEMENT_MINER, {}, "another order"),
]


@pytest.mark.parametrize(
    ("law", "broken", "sound", "changed", "said"), CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_broken_one_is_caught_by_the_law_it_breaks(law, broken, sound, changed, said):
    found = broken_laws("miner", broken, sound, **changed)
    assert law in found
    # What is no selection shows elsewhere as well.
    assert set(found) <= {law, "matched_in_groups", "matched_in_any_order", "batches"}, found
    assert re.search(said, found[law])


def test_sound_ones_keep_their_definitions():
    assert broken_laws("miner", SoundMatcher, SOUND_MATCHER, **MATCHING) == {}
    assert broken_laws("miner", SoundElementMiner, SOUND_ELEMENT_MINER, **MEAN) == {}


def test_matches_know_what_they_are_divided_by():
    none, quality = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    assert Matches(none, none, none, 5, quality).normalizer == 1
    three = torch.arange(3)
    assert Matches(three, three, none, 5, torch.ones(3)).normalizer == 3
    assert Matches(three, three, none, 5, torch.ones(3), torch.full((3,), 0.75)).normalizer == 2.25
