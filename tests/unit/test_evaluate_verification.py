"""Verification and identification: against scikit-learn, against definitions written out, and laws they obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.model_selection import KFold
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate import (
    all_pairs,
    fold_accuracy,
    identification_metrics,
    roc,
    verification_metrics,
)


def pairs(n: int = 3000, *, steps: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Cosines of pairs and whether they are genuine; on a coarse grid, with many ties, where ``steps`` are given."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(n, generator=generator) < 0.5
    scores = (0.25 * torch.randn(n, generator=generator, dtype=torch.float64) + 0.4 * same).clamp(-1, 1)
    return ((scores * steps).round() / steps if steps else scores), same


def people(identities: int, images: int, noise: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(identities).repeat_interleave(images)
    centres = torch.randn(identities, 16, generator=generator)
    return centres[labels] + noise * torch.randn(len(labels), 16, generator=generator), labels


@pytest.mark.parametrize("steps", [0, 20])
def test_the_curve_and_its_area_are_scikit_learns(steps: int) -> None:
    scores, same = pairs(steps=steps)
    far, tar, thresholds = metrics.roc_curve(same, scores, drop_intermediate=False)
    curve = roc(scores, same)
    np.testing.assert_allclose(curve.far, far, atol=1e-12)
    np.testing.assert_allclose(curve.tar, tar, atol=1e-12)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert curve.auc == pytest.approx(metrics.roc_auc_score(same, scores), abs=1e-12)


def test_at_the_equal_error_rate_as_many_are_falsely_accepted_as_rejected() -> None:
    scores, same = pairs(20000)
    curve = roc(scores, same)
    threshold = scores[~same].quantile(1 - curve.eer)
    assert float((scores[same] < threshold).double().mean()) == pytest.approx(curve.eer, abs=2e-3)
    assert roc(torch.tensor([2.0, 1.0]), torch.tensor([True, False])).eer == 0
    assert roc(torch.tensor([1.0, 2.0]), torch.tensor([True, False])).eer == 1
    assert roc(torch.tensor([1.0, 1.0]), torch.tensor([True, False])).eer == 0.5


@pytest.mark.parametrize("steps", [0, 20])
@pytest.mark.parametrize("far", [0.01, 0.1, 1.0])
def test_an_operating_point_accepts_the_most_that_its_rate_allows(steps: int, far: float) -> None:
    scores, same = pairs(steps=steps)
    point = roc(scores, same).at(far)
    allowed = [t for t in [math.inf, *scores.unique().tolist()] if float((scores[~same] >= t).double().mean()) <= far]
    assert point.threshold == min(allowed)
    assert point.tar == pytest.approx(float((scores[same] >= point.threshold).double().mean()))
    assert point.false_accepts == int((scores[~same] >= point.threshold).sum())


def test_a_rate_that_is_reached_exactly_is_kept() -> None:
    scores = torch.arange(100.0).flip(0)
    same = torch.zeros(100, dtype=torch.bool)
    same[50:] = True
    assert roc(scores, same).at(0.2).false_accepts == 10


def test_a_rate_that_few_impostors_support_is_refused_with_the_reason() -> None:
    scores, same = pairs(200)
    with pytest.raises(InputError, match=r"rests on .* takes 10, so give 10000"):
        roc(scores, same).at(1e-3)
    found = verification_metrics(scores, same, fars=(0.5, 1e-3))
    assert [point.wanted for point in found.points] == [0.5]
    assert "rests on" in found.refused[1e-3]
    assert "tar@0.001/refused" in found.to_dict()


@pytest.mark.parametrize("n", [300, 307])
def test_exact_folds_take_the_best_threshold_of_the_others(n: int) -> None:
    scores, same = pairs(n, steps=30)
    found = fold_accuracy(scores, same, folds=10)
    accuracies = []
    for (train, test), threshold in zip(KFold(10).split(scores), found.thresholds, strict=True):
        tried = [float(((scores[train] >= t) == same[train]).double().mean()) for t in [-2, *scores.unique(), 2]]
        assert float(((scores[train] >= threshold) == same[train]).double().mean()) == max(tried)
        accuracies.append(float(((scores[test] >= threshold) == same[test]).double().mean()))
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.std == pytest.approx(np.std(accuracies))


def test_the_grids_folds_are_the_protocol_of_published_figures() -> None:
    scores, same = pairs(600)
    distances = (2 - 2 * scores).numpy()
    grid = np.arange(0, 4, 0.01)
    accuracies = []
    for train, test in KFold(10).split(distances):
        tried = [np.mean((distances[train] < t) == same[train].numpy()) for t in grid]
        accuracies.append(np.mean((distances[test] < grid[np.argmax(tried)]) == same[test].numpy()))
    found = fold_accuracy(scores, same, rule="insightface")
    assert found.mean == pytest.approx(np.mean(accuracies), abs=1e-12)


def test_folds_without_a_useful_threshold_accept_none_or_all() -> None:
    scores = torch.tensor([1.0, 2.0, 1.0, 2.0])
    assert fold_accuracy(scores, torch.tensor([True, False, True, False]), folds=2).mean == 0.5


def test_pairs_of_all_embeddings_are_each_there_once() -> None:
    x, labels = people(4, 3)
    similarities, same, identities = all_pairs(x, labels)
    assert len(similarities) == 66
    assert int(same.sum()) == 4 * 3
    unit = torch.nn.functional.normalize(x, dim=1)
    expected = [float(unit[i] @ unit[j]) for i in range(12) for j in range(i + 1, 12)]
    torch.testing.assert_close(similarities, torch.tensor(expected))
    assert identities[0].tolist() == [0, 0]


@pytest.mark.parametrize(("sizes", "most"), [((9, 1, 7, 3, 12), 100), ((40, 2), 50), ((1,) * 60, 300), ((30,), 90)])
def test_pairs_that_are_drawn_are_distinct_and_of_both_kinds(sizes: tuple[int, ...], most: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    x = torch.nn.functional.one_hot(torch.arange(len(labels))).double()
    x[:, 0] = torch.arange(len(labels)) + 1.0  # no two pairs have the same cosine
    similarities, same, identities = all_pairs(x, labels, most=most, seed=3)
    unit = torch.nn.functional.normalize(x, dim=1)
    i, j = torch.triu_indices(len(x), len(x), 1)
    cosines = (unit @ unit.T)[i, j]
    order = cosines.argsort()
    place = order[torch.searchsorted(cosines[order], similarities - 1e-13)]
    assert len(similarities) == most == len(torch.unique(place))
    torch.testing.assert_close(cosines[place], similarities, rtol=0, atol=1e-12)
    assert torch.equal(same, labels[i[place]] == labels[j[place]])
    expected = torch.stack([labels[i[place]], labels[j[place]]], 1).sort(1).values
    assert torch.equal(identities.sort(1).values, expected)
    genuine = sum(size * (size - 1) // 2 for size in sizes)
    least = min(genuine, most // 2, len(i) - genuine)
    assert min(int(same.sum()), int((~same).sum())) >= least
    assert torch.equal(all_pairs(x, labels, most=most, seed=3)[0], similarities)


def test_each_pair_is_as_likely_to_be_drawn_as_any_other_of_its_kind() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    drawn = torch.cat([all_pairs(x, labels, most=8, seed=seed)[0] for seed in range(2000)])
    everything, same, _ = all_pairs(x, labels)
    counts = (drawn[:, None] - everything).abs().argmin(1).bincount(minlength=28).double()
    for kind in (same, ~same):
        expected = 2000 * 4 / int(kind.sum())
        assert float(((counts[kind] - expected).abs() / math.sqrt(expected)).max()) < 4.5


def test_rates_of_drawn_pairs_are_those_of_all() -> None:
    x, labels = people(60, 10)
    whole, part = (verification_metrics(*all_pairs(x, labels, most=most)[:2], fars=(0.1,)) for most in (None, 30000))
    assert part.genuine == whole.genuine
    assert part.impostors == 30000 - part.genuine
    assert part.auc == pytest.approx(whole.auc, abs=0.01)
    assert part.points[0].tar == pytest.approx(whole.points[0].tar, abs=0.03)


def test_fewer_than_two_pairs_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match="most is 1"):
        all_pairs(torch.randn(4, 2), torch.arange(4), most=1)


def test_intervals_hold_their_figure_and_are_wider_than_those_of_independent_pairs() -> None:
    x, labels = people(20, 8)
    similarities, same, identities = all_pairs(x, labels)
    found = verification_metrics(similarities, same, identities=identities, fars=(0.1, 0.01), resamples=200)
    for name, value in (("auc", found.auc), ("eer", found.eer), ("tar@0.1", found.points[0].tar)):
        low, high = found.intervals[name]
        assert low < value < high
    low, high = found.intervals["tar@0.01"]
    genuine, tar = int(same.sum()), found.points[1].tar
    assert high - low > 2 * 1.96 * math.sqrt(tar * (1 - tar) / genuine)
    again = verification_metrics(similarities, same, identities=identities, fars=(0.1, 0.01), resamples=200)
    assert again.intervals == found.intervals
    assert "200 draws" in found.protocol


def test_an_interval_covers_what_other_people_would_have_given() -> None:
    def measured(seed: int, resamples: int):
        x, labels = people(25, 6, seed=seed)
        similarities, same, identities = all_pairs(x, labels)
        return verification_metrics(similarities, same, identities=identities, fars=(), resamples=resamples)

    truth = np.mean([measured(seed, 0).auc for seed in range(100, 140)])
    covered = [low <= truth <= high for low, high in (measured(seed, 100).intervals["auc"] for seed in range(40))]
    assert 0.75 <= np.mean(covered) <= 1.0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"similarities": torch.zeros(4, 2)}, "shape"),
        ({"similarities": torch.tensor([0.0, math.nan, 0.0, 0.0])}, "finite"),
        ({"same": torch.tensor([1, 0, 1, 0])}, "bool"),
        ({"same": torch.ones(4, dtype=torch.bool)}, "none of the 4 pairs is impostor"),
        ({"same": torch.zeros(3, dtype=torch.bool)}, "4 similarities and 3"),
        ({"identities": torch.zeros(4, 2, dtype=torch.int64)}, "contradict"),
        ({"folds": 9}, "from 2 to 4"),
        ({"level": 1.5}, "level"),
        ({"folds": 2, "rules": ["best"]}, "insightface"),
    ],
)
def test_pairs_that_do_not_fit_are_told(change, match) -> None:
    given = {"similarities": torch.rand(4), "same": torch.tensor([True, False, True, False])}
    with pytest.raises(InputError, match=match):
        verification_metrics(**(given | change))


def ranks_by_hand(probes: Tensor, labels: Tensor, gallery: Tensor, gallery_labels: Tensor) -> list[tuple[float, int]]:
    rows = []
    for probe, label in zip(probes, labels.tolist(), strict=True):
        best: dict[int, float] = {}
        for item, other in zip(gallery, gallery_labels.tolist(), strict=True):
            cosine = float(torch.cosine_similarity(probe.double(), item.double(), dim=0))
            best[other] = max(best.get(other, -2), cosine)
        rank = sum(value >= best[label] for value in best.values()) if label in best else 0
        rows.append((max(best.values()), rank))
    return rows


@pytest.mark.parametrize("chunk", [None, 50])
def test_identification_is_its_definition(chunk: int | None) -> None:
    x, labels = people(12, 8, noise=1.3)
    gallery, gallery_labels = x[::2], labels[::2]
    in_gallery = gallery_labels < 9  # the last three people are strangers
    gallery, gallery_labels = gallery[in_gallery], gallery_labels[in_gallery]
    probes, probe_labels = x[1::2][4:], labels[1::2][4:]  # nobody looks for the first: a distractor
    found = identification_metrics(
        probes, probe_labels, gallery, gallery_labels, ks=(1, 2, 5), fars=(1.0, 0.9, 0.01), chunk=chunk
    )
    rows = ranks_by_hand(probes, probe_labels, gallery, gallery_labels)
    known = [(first, rank) for first, rank in rows if rank]
    strangers = [first for first, rank in rows if not rank]
    for k in (1, 2, 5):
        assert found.cmc[k] == pytest.approx(np.mean([rank <= k for _, rank in known]))
    assert (found.probes, found.strangers) == (len(known), len(strangers))
    assert (found.identities, found.distractors) == (8, 4)
    assert 0.01 in found.refused
    for detection in found.detections:
        assert np.mean([s >= detection.threshold - 1e-6 for s in strangers]) == pytest.approx(detection.far)
        assert detection.far <= detection.wanted
        expected = np.mean([rank == 1 and first >= detection.threshold - 1e-6 for first, rank in known])
        assert detection.rate == pytest.approx(expected)
    assert found.detections[0].rate == pytest.approx(found.cmc[1], abs=0.2)


def test_embeddings_that_are_all_alike_find_nobody() -> None:
    found = identification_metrics(torch.ones(4, 3), torch.arange(4), torch.ones(8, 3), torch.arange(8) % 4)
    assert found.cmc[1] == 0


def test_probes_whom_the_gallery_does_not_hold_cannot_be_ranked() -> None:
    with pytest.raises(InputError, match="none of the 4 probes"):
        identification_metrics(torch.ones(4, 3), torch.arange(4), torch.ones(4, 3), torch.arange(4) + 10)
