"""Each law on distances catches the distance that is wrong in that way, and only it does.

The broken parts have no docstrings, so that they inherit that of the sound one.
"""

from __future__ import annotations

import re

import pytest
import torch

from kit.sound import SOUND_DISTANCE, SoundDistance, broken_laws
from nearfar.nn.distances import Distance


def absolute(x, y):
    """The sum of the absolute differences."""
    return sum(abs(a - b) for a, b in zip(x, y, strict=True))


DEFINITION = "kit.test_laws_distances:absolute"


class Blurred(SoundDistance):
    # Many rows are computed in a way that leaves something between equal ones.

    def matrix(self, query, reference):
        return super().matrix(query, reference) + (1e-4 if len(query) > 25 else 0)


class OneWay(SoundDistance):
    # How far it is depends on where one starts.

    def matrix(self, query, reference):
        return super().matrix(query, reference) * query.norm(dim=1, keepdim=True)

    def pairwise(self, query, reference):
        return super().pairwise(query, reference) * query.norm(dim=1)


class Squared(SoundDistance):
    # The square of a metric is none.

    def matrix(self, query, reference):
        return super().matrix(query, reference).square()

    def pairwise(self, query, reference):
        return super().pairwise(query, reference).square()


class Reversed(SoundDistance):
    # By its margin near is far.

    def margin(self, x, y):
        return y - x


class SmallestIsFarthest(SoundDistance):
    # Looks for the nearest at the other end.

    def smallest_dist(self, *args, **kwargs):
        return torch.max(*args, **kwargs)


class Relative(SoundDistance):
    # Measured in the greatest distance of all.

    def matrix(self, query, reference):
        matrix = super().matrix(query, reference)
        return matrix / (matrix.amax().clamp_min(1e-9) if matrix.numel() else 1)

    def pairwise(self, query, reference):
        return self.matrix(query, reference).diagonal()


class DoubledByRows(SoundDistance):
    # Row by row it is twice as far.

    def pairwise(self, query, reference):
        return 2 * super().pairwise(query, reference)


class SaysItNormalizes(SoundDistance):
    # By its flag it normalises.

    def __init__(self):
        super().__init__()
        self.normalize_embeddings = True

    def maybe_normalize(self, embeddings, dim=1):
        return embeddings


class Coarse(SoundDistance):
    # What is in float32 is computed in bfloat16.

    def matrix(self, query, reference):
        if query.dtype != torch.float32:
            return super().matrix(query, reference)
        return super().matrix(query.bfloat16(), reference.bfloat16()).float()


class HalfGradient(SoundDistance):
    # Half of the gradient is lost.

    def matrix(self, query, reference):
        matrix = super().matrix(query, reference)
        return 0.5 * matrix + 0.5 * matrix.detach()


class NaiveNormalization(SoundDistance):
    # A zero vector is divided by its length.

    def maybe_normalize(self, embeddings, dim=1):
        return embeddings / embeddings.norm(dim=dim, keepdim=True)


CASES = [
    ("identity", Blurred, {}, "with itself"),
    ("symmetry", OneWay, {"metric": False}, "symmetric=False"),
    ("symmetry", SoundDistance, {"symmetric": False}, "but it is"),
    ("within_range", SoundDistance, {"range": (0.0, 10.0)}, "values run"),
    ("triangle_inequality", Squared, {}, "exceeds"),
    ("orientation", SoundDistance, {"similarity": True}, "is_inverted is False"),
    ("nearness", Reversed, {}, "margin"),
    ("nearness", SmallestIsFarthest, {}, "smallest_dist"),
    ("blocks", Relative, {}, "block"),
    ("pairwise", DoubledByRows, {}, "row by row"),
    ("measured_as_defined", Squared, {"metric": False, "definition": DEFINITION}, "definition"),
    ("length", SaysItNormalizes, {}, "longer"),
    ("distance_precision", Coarse, {}, "float32"),
    ("distance_gradient", HalfGradient, {}, "the gradient is"),
    ("distance_degenerate", NaiveNormalization, {}, "zero vectors"),
]


@pytest.mark.parametrize(("law", "broken", "changed", "said"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_distance_is_caught_by_the_law_it_breaks(law, broken, changed, said):
    found = broken_laws("distance", broken, SOUND_DISTANCE, **changed)
    assert set(found) == {law}, found
    assert re.search(said, found[law])


def test_sound_distances_keep_their_definition_and_what_they_declare():
    assert broken_laws("distance", SoundDistance, SOUND_DISTANCE, definition=DEFINITION) == {}
    assert broken_laws("distance", OneWay, SOUND_DISTANCE, metric=False, symmetric=False) == {}
    assert issubclass(OneWay, Distance)
