"""Offline mining finds what a search through all pairs finds."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import ArgumentError, InputError
from nearfar.train.offline import hardest
from nearfar_pair.losses.triplet import Triplet

LABELS = torch.tensor([0] * 9 + [1] * 2 + [2] * 30 + [3] + [4] * 6)
BACKENDS = ["faiss", "torch"]


@pytest.fixture
def points() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 6, generator=generator)[LABELS] + torch.randn(len(LABELS), 6, generator=generator)


def distances(x: torch.Tensor) -> list[list[float]]:
    rows = [[v / math.hypot(*row) for v in row] for row in x.double().tolist()]
    return [[math.dist(a, b) for b in rows] for a in rows]


def by_definition(
    x: torch.Tensor, positives: int, negatives: int, absolute: float, relative: float
) -> dict[int, tuple[list[int], list[int]]]:
    d, labels, found = distances(x), LABELS.tolist(), {}
    for a, row in enumerate(d):
        far = sorted((p for p in range(len(d)) if labels[p] == labels[a] and p != a), key=lambda p: -row[p])
        least = max(absolute, relative * row[far[0]]) if far else absolute
        near = sorted((n for n in range(len(d)) if labels[n] != labels[a] and row[n] >= least), key=lambda n: row[n])
        if far and near:
            found[a] = far[:positives], near[:negatives]
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("positives", "negatives", "absolute", "relative"),
    [(1, 1, 0, 0), (3, 2, 0, 0), (2, 50, 0, 0), (1, 3, 0.8, 0), (2, 2, 0, 0.9), (1, 1, 2.0, 0)],
)
def test_the_farthest_positives_and_nearest_negatives_are_found(
    points: torch.Tensor, positives: int, negatives: int, absolute: float, relative: float, backend: str
) -> None:
    found = hardest(
        points,
        LABELS,
        positives=positives,
        negatives=negatives,
        absolute_margin=absolute,
        relative_margin=relative,
        backend=backend,  # type: ignore[arg-type]
    )
    table = {
        int(a): ([i for i in p.tolist() if i >= 0], [i for i in n.tolist() if i >= 0])
        for a, p, n in zip(found.anchors, found.positives, found.negatives, strict=True)
    }
    assert table == by_definition(points, positives, negatives, absolute, relative)


@pytest.mark.parametrize("backend", BACKENDS)
def test_negatives_are_found_behind_many_of_the_own_class(backend: str) -> None:
    """Lists of neighbours grow past a class of hundreds, all of which are nearer than any negative."""
    generator = torch.Generator().manual_seed(1)
    own = torch.tensor([1.0, 0, 0]) + 0.01 * torch.randn(300, 3, generator=generator)
    other = torch.tensor([0, 1.0, 0]) + 0.01 * torch.randn(4, 3, generator=generator)
    labels = torch.tensor([0] * 300 + [1] * 4)
    found = hardest(torch.cat((own, other)), labels, negatives=2, backend=backend)  # type: ignore[arg-type]
    assert len(found.anchors) == 304
    assert (found.negatives[:300] >= 300).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_near_duplicate_with_another_label_is_left_out(points: torch.Tensor, backend: str) -> None:
    x = points.clone()
    x[9] = x[0]
    plain = hardest(x, LABELS, backend=backend)  # type: ignore[arg-type]
    assert plain.negatives[0].tolist() == [9]
    assert hardest(x, LABELS, absolute_margin=1e-3, backend=backend).negatives[0].tolist() != [9]  # type: ignore[arg-type]


def test_triplets_are_a_choice_for_a_loss(points: torch.Tensor) -> None:
    found = hardest(points, LABELS, positives=2, negatives=3)
    a, p, n = found.triplets()
    assert (LABELS[a] == LABELS[p]).all()
    assert (LABELS[a] != LABELS[n]).all()
    d = torch.tensor(distances(points))
    expected = torch.relu(d[a, p] - d[a, n] + 0.2)
    expected = expected[expected > 0].mean()
    torch.testing.assert_close(Triplet(margin=0.2)(points.double(), indices_tuple=(a, p, n)), expected.double())
    # A class of two gives one positive, so three triplets; a class of one none.
    assert ((a == 9).sum(), (a == 41).sum()) == (3, 0)


def test_what_cannot_be_mined_is_said(points: torch.Tensor) -> None:
    with pytest.raises(ArgumentError, match="negatives must be a whole number"):
        hardest(points, LABELS, negatives=0)
    with pytest.raises(ArgumentError, match="backend"):
        hardest(points, LABELS, backend="hnsw")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="NaN"):
        hardest(points.fill_(torch.nan), LABELS)


def test_one_class_has_nothing_to_tell_apart() -> None:
    found = hardest(torch.eye(3), torch.zeros(3, dtype=torch.int64))
    assert [len(index) for index in found.triplets()] == [0, 0, 0]
