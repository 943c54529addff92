"""The search for an input on which a law does not hold: small, seeded, and in the law's own words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st

from kit.sound import SOUND_LOSS, SoundLoss
from nearfar.discovery import Selector, discover
from nearfar.nn import ClassLoss
from nearfar.registry import Registry
from nearfar.spec import LossSpec
from nearfar.testing.law import LawBroken, NotApplicable
from nearfar.testing.search import for_all, scenes
from nearfar.testing.subject import Subject


def subject_of(target=SoundLoss, seed=0, **changed):
    registry = Registry(discover(selector=Selector(allow=frozenset({"core"}))))
    return Subject(registry.register(LossSpec(**{**SOUND_LOSS, **changed}), target), registry, seed)


def seen(subject, examples=10):
    origins = []
    for_all(subject, lambda scene: origins.append(scene.origin), examples=examples, scene=scenes(subject))
    return origins


def test_the_same_seed_draws_the_same_and_another_does_not():
    assert seen(subject_of(seed=3)) == seen(subject_of(seed=3))
    assert seen(subject_of(seed=3)) != seen(subject_of(seed=4))
    assert len(seen(subject_of(), examples=7)) == 7


def test_what_fails_is_made_small():
    def holds(number):
        if number >= 137:
            raise LawBroken(f"{number} is too large")

    with pytest.raises(LawBroken, match=r"^137 is too large$"):
        for_all(subject_of(), holds, examples=200, number=st.integers(0, 10**6))


def test_a_scene_is_made_small_too():
    subject = subject_of()

    def holds(scene):
        if len(scene["embeddings"]) > 4:
            raise LawBroken("more than four", scene)

    with pytest.raises(LawBroken) as caught:
        for_all(subject, holds, examples=30, scene=scenes(subject))
    assert len(caught.value.scene["embeddings"]) == 6  # the next that has 2 to 4 of each of 2 to 4 classes
    assert caught.value.scene["embeddings"].shape[1] == 2


def test_a_failure_that_does_not_come_again_is_told_in_the_words_of_the_law():
    calls = []

    def holds(scene):
        calls.append(scene)
        if len(calls) == 2:
            raise LawBroken("the value is 7", scene, margin=0.2)

    subject = subject_of()
    with pytest.raises(LawBroken, match="the value is 7; asked again about the same it held") as caught:
        for_all(subject, holds, scene=scenes(subject))
    assert caught.value.scene is calls[1]
    assert caught.value.arguments == {"margin": 0.2}


@pytest.mark.parametrize("error", [NotApplicable("no"), SystemExit(3), KeyboardInterrupt()])
def test_what_is_no_failure_passes_through(error):
    def holds(scene):
        raise error

    subject = subject_of()
    with pytest.raises(type(error)):
        for_all(subject, holds, scene=scenes(subject))


class PerClass(ClassLoss):
    def __init__(self, num_classes: int, embedding_size: int) -> None:
        super().__init__(num_classes, embedding_size)
        self.weight = torch.nn.Parameter(torch.ones(num_classes, embedding_size))

    def losses(self, embeddings, labels):
        return (embeddings - self.weight[labels]).square().sum(1)

    def scores(self, embeddings):
        return embeddings @ self.weight.T


def test_scenes_have_two_to_four_of_each_of_two_to_four_classes_and_few_dimensions_where_any_will_do():
    subject = subject_of()

    def holds(scene):
        counts = scene["labels"].bincount()
        assert 2 <= len(counts) <= 4
        assert 2 <= int(counts[0]) == int(counts.max()) <= 4
        assert 2 <= scene["embeddings"].shape[1] <= 8

    for_all(subject, holds, examples=30, scene=scenes(subject))
    fixed = subject_of(PerClass, needs=("num_classes", "embedding_size"), reference=False, accepts=())
    dims = set()
    for_all(fixed, lambda scene: dims.add(scene["embeddings"].shape[1]), scene=scenes(fixed))
    assert dims == {8}
