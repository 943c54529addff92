"""Batches are a pure function of the seed and the step, and treat classes alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nearfar.data import Augment, Draw, Emoji, HardSampler, Keyed, PKSampler
from nearfar.errors import ArgumentError, DataError
from nearfar.nn import counted

LABELS = torch.arange(10).repeat_interleave(torch.tensor([4, 2, 9, 4, 4, 30, 4, 4, 1, 4]))


def sampler(**changes):
    arguments = {"classes_per_batch": 3, "samples_per_class": 4, "steps": 40, "seed": 7, **changes}
    return PKSampler(LABELS, **arguments)


def images(batch):
    return [draw.image for draw in batch]


def test_a_batch_has_p_classes_and_k_images_of_each_class_by_class():
    for batch in sampler():
        classes = LABELS[images(batch)].view(3, 4)
        assert (classes == classes[:, :1]).all()
        assert len(set(classes[:, 0].tolist())) == 3


def test_a_batch_depends_on_nothing_but_the_step():
    forwards = [sampler().batch(step) for step in range(40)]
    one = sampler()
    backwards = [one.batch(step) for step in reversed(range(40))]
    assert forwards == backwards[::-1] == list(sampler())


@pytest.mark.parametrize("start", [0, 1, 3, 17, 40])
def test_a_resumed_run_gets_what_the_uninterrupted_one_would_have_got(start):
    assert list(sampler(start_step=start)) == list(sampler())[start:]


@pytest.mark.parametrize("start", [0, 1, 30, 40])
def test_the_length_is_the_number_of_batches_that_come(start):
    assert len(sampler(start_step=start)) == len(list(sampler(start_step=start))) == 40 - start


@pytest.mark.parametrize("world", [2, 3])
def test_the_batches_of_all_ranks_are_the_batch_of_one_process(world):
    ranks = [sampler(classes_per_batch=3, rank=rank, world_size=world) for rank in range(world)]
    whole = sampler(classes_per_batch=3 * world)
    for step in range(40):
        assert [draw for rank in ranks for draw in rank.batch(step)] == whole.batch(step)
    assert {each.steps_per_epoch for each in ranks} == {whole.steps_per_epoch}


def test_ranks_need_classes_of_their_own():
    with pytest.raises(DataError, match="4 ranks of 3 classes need 12 classes, and there are 10"):
        sampler(world_size=4)
    with pytest.raises(ArgumentError, match="rank=2: there are 2 ranks"):
        sampler(rank=2, world_size=2)


def hard(**changes):
    """Of each image of a class of several: the next two of its class, and the first image of the next two classes."""
    anchors, positives, negatives = [], [], []
    for image, label in enumerate(LABELS.tolist()):
        members = [i for i, other in enumerate(LABELS.tolist()) if other == label]
        if len(members) > 2:
            at = members.index(image)
            anchors.append(image)
            positives.append([members[(at + 1) % len(members)], members[(at + 2) % len(members)]])
            negatives.append([LABELS.tolist().index((label + step) % 10) for step in (1, 2)])
    found = {
        name: torch.tensor(v)
        for name, v in zip(("anchors", "positives", "negatives"), (anchors, positives, negatives), strict=True)
    }
    arguments = {"classes_per_batch": 4, "samples_per_class": 3, "steps": 40, "seed": 7, **found, **changes}
    return HardSampler(LABELS, **arguments)


def test_hard_batches_have_p_different_classes_in_pairs_and_k_images_of_each():
    first_of = [LABELS.tolist().index(label) for label in range(10)]
    paired = 0
    for batch in hard():
        groups = torch.tensor(images(batch)).view(4, 3)
        classes = LABELS[groups]
        assert (classes == classes[:, :1]).all()
        assert len(set(classes[:, 0].tolist())) == 4
        for own, other in (groups[:2], groups[2:]):
            step = int(LABELS[other[0]] - LABELS[own[0]]) % 10
            members = (LABELS[own[0]] == LABELS).nonzero()[:, 0].tolist()
            at = members.index(int(own[0]))
            following = [members[(at + k) % len(members)] for k in (0, 1, 2)]
            paired += step in (1, 2) and int(other[0]) in first_of and own.tolist() == following
    assert paired == 80


def test_hard_batches_depend_on_nothing_but_the_step_and_use_every_anchor():
    assert [hard().batch(step) for step in reversed(range(40))][::-1] == list(hard())
    assert list(hard(start_step=11)) == list(hard())[11:]
    assert {batch[0].image for batch in hard(steps=400)} >= set(range(15, 45))


@pytest.mark.parametrize("per_batch", [1, 5, 10])
def test_classes_that_no_pair_is_left_for_are_drawn(per_batch):
    for batch in hard(classes_per_batch=per_batch, steps=5):
        assert len(set(LABELS[images(batch)].tolist())) == per_batch
        assert len(batch) == 3 * per_batch


def test_hard_batches_of_all_ranks_are_that_of_one_process():
    ranks = [hard(classes_per_batch=2, rank=rank, world_size=2) for rank in range(2)]
    assert all([*ranks[0].batch(step), *ranks[1].batch(step)] == hard().batch(step) for step in range(20))


def test_what_is_hard_is_of_the_data_set():
    with pytest.raises(ArgumentError, match="negatives run from 0 to 900"):
        hard(negatives=torch.tensor([[0, 900]]).repeat(len(hard()._hard[0]), 1))
    with pytest.raises(ArgumentError, match=r"positives \(m, p\)"):
        hard(positives=torch.zeros(3, dtype=torch.int64))


def test_a_longer_run_begins_like_a_shorter_one():
    assert list(sampler(steps=100))[:40] == list(sampler())


def test_another_seed_gives_other_batches():
    assert list(sampler(seed=8)) != list(sampler())


def test_iterating_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    list(sampler())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_draw_says_where_it_is_used():
    batch = sampler().batch(5)
    assert all(isinstance(draw, Draw) for draw in batch)
    assert [draw.step for draw in batch] == [5] * 12
    assert [draw.position for draw in batch] == list(range(12))


def test_an_epoch_shows_no_class_twice():
    one = sampler()
    assert one.steps_per_epoch == 3
    for epoch in range(5):
        batches = [one.batch(3 * epoch + place) for place in range(3)]
        classes = [int(LABELS[draw.image]) for batch in batches for draw in batch[::4]]
        assert len(set(classes)) == 9


def test_classes_appear_about_equally_often_whatever_their_size():
    steps = 1500
    counts = Counter(int(LABELS[draw.image]) for batch in sampler(steps=steps) for draw in batch[::4])
    # Each of 500 epochs leaves one class of ten out: binomial with mean 50 and deviation 6.7.
    left_out = [steps // 3 - counts[label] for label in range(10)]
    assert sum(left_out) == 500
    assert max(abs(times - 50) for times in left_out) < 34


def test_images_of_a_large_class_appear_about_equally_often():
    counts = Counter(draw.image for batch in sampler(steps=2000) for draw in batch if LABELS[draw.image] == 5)
    # About 600 visits of 4 images out of 30: mean 80, deviation 8.3.
    assert len(counts) == 30
    assert max(abs(times - sum(counts.values()) / 30) for times in counts.values()) < 42


def test_a_class_with_enough_images_gives_no_image_twice_and_a_smaller_one_repeats_evenly():
    for batch in sampler():
        for first in range(0, 12, 4):
            group = images(batch[first : first + 4])
            size = int((LABELS[group[0]] == LABELS).sum())
            assert sorted(Counter(group).values()) == {1: [4], 2: [2, 2]}.get(size, [1, 1, 1, 1])


def test_the_permutation_is_the_same_in_every_version_and_on_every_machine():
    # A change of these numbers breaks the resumption of runs begun before it.
    assert counted.permutation(8, counted.key(0, 1, 2)).tolist() == [7, 6, 4, 2, 3, 5, 0, 1]
    assert counted.key(0, 1, 2) == -1559633177016248026


def test_keys_agree_with_the_published_splitmix64():
    # The generator's first outputs for the seed 1234567, as listed with the reference implementation.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    drawn = counted._bits(torch.tensor([1234567]), 4)[0].tolist()
    assert [number % 2**64 for number in drawn] == published


def test_uniform_numbers_are_uniform_and_uncorrelated():
    keys = torch.tensor([counted.key(3, step, position) for step in range(50) for position in range(100)])
    numbers = counted.uniform(keys, 8)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    # 5,000 numbers: the mean deviates by 0.0041, a correlation by 0.0141; five deviations are allowed.
    assert (numbers.mean(dim=0) - 0.5).abs().max() < 0.021
    assert (torch.corrcoef(numbers.T) - torch.eye(8)).abs().max() < 0.071


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_batches_in_any_number_of_processes(workers):
    data = Emoji("validation")
    batches = PKSampler(data.labels, classes_per_batch=4, samples_per_class=4, steps=5, seed=1, start_step=2)
    augment = Augment(32)
    loaded = list(DataLoader(Keyed(data, seed=1), batch_sampler=batches, num_workers=workers))
    assert len(loaded) == 3
    for step, (pixels, labels, keys) in enumerate(loaded, start=2):
        drawn = batches.batch(step)
        assert torch.equal(pixels, data.images[images(drawn)])
        assert torch.equal(labels, data.labels[images(drawn)])
        expected = torch.tensor([Keyed(data, seed=1)[draw][2] for draw in drawn])
        assert torch.equal(keys, expected)
        assert torch.equal(augment(pixels, keys), augment(data.images[images(drawn)], expected))
    assert len({int(key) for _, _, keys in loaded for key in keys}) == 48


def test_too_few_classes_are_an_error_that_says_how_many_there_are():
    with pytest.raises(DataError) as caught:
        sampler(classes_per_batch=11)
    assert str(caught.value) == (
        "a batch of 11 classes × 4 images needs 11 classes, and there are 10 to train on: "
        "lower classes_per_batch to 10 or fewer, or add classes"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes_per_batch": 0}, "classes_per_batch=0: it must be at least 1"),
        ({"samples_per_class": 0}, "samples_per_class=0: it must be at least 1"),
        ({"steps": -1}, "steps=-1: it must be at least 0"),
        ({"start_step": -1}, "start_step=-1: it must be at least 0"),
        ({"start_step": 41}, "cannot start at step 41 of a run of 40 steps"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(ArgumentError, match=message):
        sampler(**changes)


@pytest.mark.parametrize("labels", [torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3)])
def test_labels_that_are_no_class_ids_are_refused(labels):
    with pytest.raises(ArgumentError, match="give one integer for each image"):
        PKSampler(labels, classes_per_batch=1, samples_per_class=1, steps=1)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["ape", "ape", "bee"], "'ape'"),
        (np.array(["ape", "bee"]), "'ape'"),
        ([[0, 1], [2]], "\\[0, 1\\]"),
        (None, "None"),
    ],
)
def test_labels_that_are_no_numbers_are_refused_by_the_first(labels, found):
    with pytest.raises(ArgumentError, match=f"labels have .*{found}.*: give one integer for each image, such as "):
        PKSampler(labels, classes_per_batch=1, samples_per_class=1, steps=1)
