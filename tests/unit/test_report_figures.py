"""Figures of a report: rates, histograms, intervals, the map and the hardest pairs, against scikit-learn and numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from nearfar.data import ImageSource
from nearfar.errors import CheckpointError, InputError
from nearfar.evaluate import retrieval_metrics
from nearfar.evaluate.roc import SUPPORT
from nearfar.report import figures
from nearfar.report.curves import read_curves
from nearfar.report.figures import pair_figures, retrieval_figures
from nearfar.report.geometry import hardest_pairs, plane


class Points(ImageSource):
    """A source of which only the labels are looked at."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self.class_names = tuple(map(str, range(int(labels.max()) + 1)))


def clusters(people: int = 20, images: int = 6, noise: float = 0.8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(people).repeat_interleave(images)
    centres = torch.randn(people, 8, generator=generator)
    return centres[labels] + noise * torch.randn(len(labels), 8, generator=generator), labels


def cosines(x: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    unit = F.normalize(x.double(), dim=1).numpy()
    i, j = np.triu_indices(len(unit), 1)
    return (unit[i] * unit[j]).sum(1), labels.numpy()[i] == labels.numpy()[j]


def test_the_curve_is_that_of_scikit_learn() -> None:
    x, labels = clusters()
    found = pair_figures(x, labels)
    scores, same = cosines(x, labels)
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    assert found.curve[0][0] == pytest.approx(SUPPORT / (~same).sum(), rel=1e-6)
    assert found.curve[-1] == (1.0, 1.0)
    for rate, accepted in found.curve:
        # The most that is accepted rightly while no more than the rate is falsely.
        assert accepted == pytest.approx(tar[far <= rate * (1 + 1e-9)].max(), abs=1e-12)
    assert {figure.name: figure.value for figure in found.figures}["auc"] == pytest.approx(roc_auc_score(same, scores))


def test_histograms_are_those_of_numpy() -> None:
    x, labels = clusters()
    found = pair_figures(x, labels)
    scores, same = cosines(x, labels)
    for shares, kept in ((found.genuine, same), (found.impostors, ~same)):
        counts, edges = np.histogram(1 - scores[kept], bins=len(shares), range=(0, 2))
        assert [place for place, _ in shares] == pytest.approx((edges[1:] + edges[:-1]) / 2)
        # A cosine that rounding moves over an edge may change two bins by one pair.
        assert np.abs(np.array([share for _, share in shares]) * kept.sum() - counts).max() <= 1
        assert sum(share for _, share in shares) == pytest.approx(1)
    assert found.pairs == (int(same.sum()), int((~same).sum()))
    assert found.there == len(same)


def test_of_too_many_pairs_those_are_drawn_that_evaluation_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_PAIRS", 2000)
    x, labels = clusters()
    found = pair_figures(x, labels)
    assert found.there == 7140
    assert found.pairs == (300, 1700)  # of the kind that has few, all
    scores, same = cosines(x, labels)
    auc = {figure.name: figure.value for figure in found.figures}["auc"]
    assert auc == pytest.approx(roc_auc_score(same, scores), abs=0.02)


def test_retrieval_is_that_of_evaluation_with_intervals_around_it() -> None:
    x, labels = clusters()
    expected = retrieval_metrics(x, labels)
    for figure in retrieval_figures(x, Points(labels)):
        assert figure.value == pytest.approx(expected[figure.name], abs=1e-12)
        assert figure.interval is not None
        low, high = figure.interval
        assert low <= figure.value <= high
        assert high - low < 0.4


def test_an_interval_is_as_wide_as_that_of_means_over_drawn_classes() -> None:
    # Half of the classes find everything and half nothing: the mean of twenty coin flips, by classes and not images.
    angles = torch.tensor([0.0, 0.0001]).repeat(20)
    angles = angles + torch.arange(20).repeat_interleave(2) * 0.3
    x = torch.stack([angles.cos(), angles.sin()], 1)
    x[1::4] = -x[1::4]  # the second image of every other class lies opposite
    found = {figure.name: figure for figure in retrieval_figures(x, Points(torch.arange(20).repeat_interleave(2)))}
    assert found["recall@1"].value == pytest.approx(0.5)
    low, high = found["recall@1"].interval or (0.0, 0.0)
    deviation = (0.25 / 20) ** 0.5
    assert (high - low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.2)


def test_the_plane_is_that_of_principal_components() -> None:
    x, _ = clusters()
    points, share = plane(x)
    unit = F.normalize(x.double(), dim=1).numpy()
    pca = PCA(2).fit(unit)
    expected = pca.transform(unit)
    assert share == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-9)
    found = points.numpy() - points.numpy().mean(0)
    scale = np.linalg.norm(found) / np.linalg.norm(expected)
    for axis in (0, 1):
        sign = np.sign((found[:, axis] * expected[:, axis]).sum())
        np.testing.assert_allclose(sign * found[:, axis], scale * expected[:, axis], atol=1e-9)
    assert float(points.min()) >= 0
    assert float(points.max()) <= 1
    assert float((points.max(0).values - points.min(0).values).max()) == pytest.approx(1)


@pytest.mark.parametrize("x", [torch.ones(5, 3), torch.eye(2)[[0, 1, 0]], torch.tensor([[1.0], [-1.0], [1.0]])])
def test_what_has_no_plane_still_has_places(x: Tensor) -> None:
    points, share = plane(x)
    assert points.shape == (len(x), 2)
    assert points.isfinite().all()
    assert 0 <= share <= 1 + 1e-12


@pytest.mark.parametrize("rows", [512, 7])
def test_the_hardest_pairs_are_those_of_the_whole_matrix_each_image_once(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearfar.report.geometry._ROWS", rows)
    x, labels = clusters(people=8, images=5)
    scores, same = cosines(x, labels)
    i, j = np.triu_indices(len(x), 1)
    for found, kept, order in zip(hardest_pairs(x, labels, 6), (same, ~same), (1, -1), strict=True):
        expected: list[tuple[int, int]] = []
        for place in np.argsort(order * scores[kept], kind="stable"):
            pair = int(i[kept][place]), int(j[kept][place])
            if len(expected) < 6 and not {*pair} & {image for one in expected for image in one}:
                expected.append(pair)
        assert [(pair.first, pair.second) for pair in found] == expected
        for pair in found:
            assert pair.similarity == pytest.approx(float(F.cosine_similarity(x[pair.first], x[pair.second], dim=0)))


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "train.csv"
    log.parent.mkdir()
    log.write_text("step,epoch,loss,lr\n1,1,0.5,1e-3\n2,1,nan,1e-3\n3,1,inf,\n4,2,-0.25,5e-4\n5,2,0.1")
    found = read_curves(log)
    assert found.columns == {"loss": ((1, 0.5), (4, -0.25), (5, 0.1)), "lr": ((1, 1e-3), (2, 1e-3), (4, 5e-4))}
    assert found.left_out == {"loss": 2, "lr": 0}


@pytest.mark.parametrize("content", ["", "step,loss\n", "step,loss\na,b\n", "loss\n0.5\n", "step,loss\n1,nan\n"])
def test_a_log_without_a_number_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(CheckpointError, match="has no rows"):
        read_curves(tmp_path / "train.csv")


def test_one_class_has_no_pairs_of_two() -> None:
    with pytest.raises(InputError):
        pair_figures(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64))
