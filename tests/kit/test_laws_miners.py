"""Each law on miners catches the miner that is wrong in that way, and only it does.

The broken parts have no docstrings, so that they inherit that of the sound one.
"""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from kit.sound import SOUND_MINER, SoundMiner, broken_laws
from nearfar.nn import IndexSelection
from nearfar.nn.arguments import non_negative
from nearfar.nn.distances import Euclidean
from nearfar.nn.selection import distance_matrix


def nearest_negatives(embeddings, labels, ref_emb, ref_labels, distance):
    """Every positive pair with the anchor's nearest negative, the first of equally near ones."""
    rows, own = embeddings.tolist(), labels.tolist()
    others, theirs = (rows, own) if ref_emb is None else (ref_emb.tolist(), ref_labels.tolist())
    found = set()
    for a, p in itertools.product(range(len(rows)), range(len(others))):
        negatives = [n for n in range(len(others)) if theirs[n] != own[a]]
        if own[a] == theirs[p] and not (ref_emb is None and a == p) and negatives:
            found.add((a, p, min(negatives, key=lambda n: distance(rows[a], others[n]))))
    return found


DEFINITION = "kit.test_laws_miners:nearest_negatives"


class InPairs(SoundMiner):
    # Pairs, where the spec says triplets.

    def choose(self, batch, distance, loss):
        a, p, n = super().choose(batch, distance, loss).indices()
        return IndexSelection((a, p, a, n))


class ShortIndices(SoundMiner):
    # Indices of 32 bits.

    def choose(self, batch, distance, loss):
        return IndexSelection(tuple(index.int() for index in super().choose(batch, distance, loss).indices()))


class TakenForAnother(SoundMiner):
    # The batch given as its own reference is taken for another set, so that an element is its own positive.

    def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
        if ref_emb is not None:
            ref_emb, ref_labels = ref_emb.clone(), ref_labels.clone()
        return super().forward(embeddings, labels, ref_emb, ref_labels)


class FirstReferences(SoundMiner):
    # Of a reference set it looks at as many as there are embeddings.

    def choose(self, batch, distance, loss):
        a, p, n = super().choose(batch, distance, loss).indices()
        seen = (p < len(batch.embeddings)) & (n < len(batch.embeddings))
        return IndexSelection((a[seen], p[seen], n[seen]))


class NoReference(SoundMiner):
    # A reference set is ignored.

    def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
        return super().forward(embeddings, labels)


class Moody(SoundMiner):
    # Where random generators started decides whether the first triplet counts.

    def choose(self, batch, distance, loss):
        indices = super().choose(batch, distance, loss).indices()
        return IndexSelection(tuple(index[torch.initial_seed() % 2 :] for index in indices))


class WithoutTheFirst(SoundMiner):
    # The first of the batch is never an anchor.

    def choose(self, batch, distance, loss):
        indices = super().choose(batch, distance, loss).indices()
        return IndexSelection(tuple(index[indices[0] > 0] for index in indices))


class GreaterClasses(SoundMiner):
    # Only triplets whose negative is of a class with a greater number.

    def choose(self, batch, distance, loss):
        a, p, n = super().choose(batch, distance, loss).indices()
        kept = batch.reference_labels[n] > batch.labels[a]
        return IndexSelection((a[kept], p[kept], n[kept]))


class InPlace(SoundMiner):
    # Scales what it is given, in place.

    def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
        with torch.no_grad():
            embeddings.mul_(2)
        return super().forward(embeddings, labels, ref_emb, ref_labels)


class Hoarder(SoundMiner):
    # Keeps what the embeddings were computed from, but hides it from copies.

    def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
        self.seen = embeddings * 1
        return super().forward(embeddings, labels, ref_emb, ref_labels)

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "seen"}


class Reach(SoundMiner):
    """Every positive pair nearer than the reach with the anchor's nearest negative.

    Parameters
    ----------
    reach : float
        [units of the distance, 0..inf] How far away a positive may be.
    distance
        As in :class:`nearfar.nn.Miner`.
    """

    def __init__(self, reach=1.2, *, distance=None):
        super().__init__(distance=distance)
        self.reach = non_negative("reach", reach)

    def choose(self, batch, distance, loss):
        a, p, n = super().choose(batch, distance, loss).indices()
        d = distance(batch.embeddings, batch.reference)[a, p]
        kept = (d > self.reach) if distance.is_inverted else (d < self.reach)
        return IndexSelection((a[kept], p[kept], n[kept]))


class Deaf(SoundMiner):
    # The distance of the loss is not asked for.

    def _distance_for(self, loss):
        return Euclidean() if self.distance is None else self.distance


class LastOfEquals(SoundMiner):
    # Of equally near negatives the last, where the definition has the first.

    def choose(self, batch, distance, loss):
        a, p, n = super().choose(batch, distance, loss).indices()
        if len(a):
            d = distance_matrix(distance, batch).masked_fill(~batch.negative_mask(), torch.inf)
            n = d.shape[1] - 1 - d.flip(1).argmin(1)[a]
        return IndexSelection((a, p, n))


class EasiestOnSimilarities(SoundMiner):
    # The least similarity is taken for the least distance.

    def choose(self, batch, distance, loss):
        matrix = distance(batch.embeddings, batch.reference).masked_fill(~batch.negative_mask(), torch.inf)
        a, p, _ = super().choose(batch, distance, loss).indices()
        return IndexSelection((a, p, matrix.argmin(1)[a] if len(a) else a))


class HardOnDistances(SoundMiner):
    # Of a similarity it takes every negative that is farther off than the positive, rather than nearer.

    def choose(self, batch, distance, loss):
        d = distance(batch.embeddings, batch.reference)
        a, p = torch.where(batch.positive_mask())
        pair, n = torch.where(batch.negative_mask()[a] & (d[a] < d[a, p][:, None]))
        return IndexSelection((a[pair], p[pair], n))


class ReachWithoutASign(Reach):
    # What is larger is farther, it thinks.

    def choose(self, batch, distance, loss):
        a, p, n = SoundMiner.choose(self, batch, distance, loss).indices()
        kept = distance(batch.embeddings, batch.reference)[a, p] < self.reach
        return IndexSelection((a[kept], p[kept], n[kept]))


class DrawsEasyNegatives(SoundMiner):
    # A negative among the anchor's two nearest, by the numbers as they are, is drawn.

    def choose(self, batch, distance, loss):
        matrix = distance(batch.embeddings, batch.reference).masked_fill(~batch.negative_mask(), torch.inf)
        a, p, n = super().choose(batch, distance, loss).indices()
        if not len(a):
            return IndexSelection((a, p, n))
        near = matrix.argsort(1)[:, :2]
        drawn = near[a, torch.randint(2, a.shape)]
        return IndexSelection((a, p, drawn.where(batch.negative_mask()[a, drawn], n)))


CASES = [
    ("produces", InPairs, {}, "four|returned 4"),
    ("selection", ShortIndices, {}, "int32"),
    ("signs", TakenForAnother, {}, "its own positive"),
    ("mining_reference", FirstReferences, {}, "another order"),
    ("mining_reference", NoReference, {"reference": False}, "ignores"),
    ("mining_chance", Moody, {}, "start differently"),
    ("mining_permutation", WithoutTheFirst, {}, "in the order"),
    ("mining_relabelling", GreaterClasses, {}, "called"),
    ("mining_untouched", InPlace, {}, "embeddings in place"),
    ("mining_untouched", Hoarder, {}, "keeps seen"),
    ("mining_thresholds", Reach, {"thresholds": {"reach": "positive"}}, "fewer positive"),
    ("mining_for_loss", Deaf, {}, "for a loss on"),
    ("mining_similarity", EasiestOnSimilarities, {}, "on a similarity that is small"),
    ("mining_similarity", HardOnDistances, {}, "on a similarity that is small"),
    ("mining_similarity", ReachWithoutASign, {"thresholds": {"reach": "negative"}}, "on a similarity that is small"),
    ("mining_similarity", DrawsEasyNegatives, {"random": True}, "are nearer than the average, on a similarity farther"),
    (
        "mining_similarity",
        EasiestOnSimilarities,
        {"distances": ("core.euclidean", "core.cosine")},
        "are nearer than the average, on a similarity farther",
    ),
    ("selected_as_defined", LastOfEquals, {"definition": DEFINITION}, "by its definition"),
]


@pytest.mark.parametrize(("law", "broken", "changed", "said"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_miner_is_caught_by_the_law_it_breaks(law, broken, changed, said):
    found = broken_laws("miner", broken, SOUND_MINER, **changed)
    assert set(found) == {law}, found
    assert re.search(said, found[law])


def test_a_sound_miner_keeps_its_definition():
    assert broken_laws("miner", SoundMiner, SOUND_MINER, definition=DEFINITION) == {}
