"""Retrieval metrics: against their definitions, pytorch-metric-learning, and laws they obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate import retrieval_metrics


def definition(
    query: Tensor, labels: Tensor, gallery: Tensor, gallery_labels: Tensor, own: list[int | None], k: int
) -> dict[str, float]:
    """The formulas, one query at a time, in Python's float64, ranked by euclidean distance."""
    rows: list[tuple[float, float, float]] = []
    for q, label, self_index in zip(query.double().numpy(), labels.tolist(), own, strict=True):
        others = [j for j in range(len(gallery)) if j != self_index]
        distance = {j: float(np.linalg.norm(q - gallery[j].double().numpy())) for j in others}
        hits = [int(gallery_labels[j].item() == label) for j in sorted(others, key=lambda j: (distance[j], j))]
        R = sum(hits)
        if R:
            average_precision = sum(hits[i] * sum(hits[: i + 1]) / (i + 1) for i in range(R)) / R
            rows.append((float(any(hits[:k])), sum(hits[:R]) / R, average_precision))
    recall, r_precision, map_at_r = (math.fsum(column) / len(rows) for column in zip(*rows, strict=True))
    return {f"recall@{k}": recall, "r_precision": r_precision, "map@r": map_at_r, "queries": len(rows)}


def clustered(sizes: list[int], dim: int = 8, noise: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings of one normal cloud a class, in a random order."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    centres = torch.randn(len(sizes), dim, generator=generator)
    return centres[labels] + noise * torch.randn(len(labels), dim, generator=generator), labels


def equal(found: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("sizes", [[4] * 10, [2, 3, 30, 5, 1], [20, 20], [1, 1, 2], [37]])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_equals_the_definition(sizes: list[int], k: int) -> None:
    x, labels = clustered(sizes)
    expected = definition(x, labels, x, labels, list(range(len(x))), k)
    equal(retrieval_metrics(x, labels, ks=(k,), metric="euclidean"), expected)


@pytest.mark.parametrize("k", [1, 4])
def test_equals_the_definition_on_a_separate_gallery(k: int) -> None:
    gallery, gallery_labels = clustered([6, 1, 9, 4], seed=0)
    query, labels = clustered([3, 3, 3, 3, 3], seed=1)  # class 4 is not in the gallery
    found = retrieval_metrics(
        query, labels, gallery=gallery, gallery_labels=gallery_labels, ks=(k,), metric="euclidean"
    )
    equal(found, definition(query, labels, gallery, gallery_labels, [None] * len(query), k))
    assert found["queries"] == 12
    assert found["queries_left_out"] == 3


def test_queries_that_are_part_of_the_gallery_do_not_find_themselves() -> None:
    gallery, gallery_labels = clustered([6, 1, 9, 4])
    positions = torch.tensor([0, 3, 8, -1])
    query, labels = gallery[positions], gallery_labels[positions]
    found = retrieval_metrics(
        query,
        labels,
        gallery=gallery,
        gallery_labels=gallery_labels,
        exclude_self=positions,
        metric="euclidean",
    )
    expected = definition(query, labels, gallery, gallery_labels, [0, 3, 8, None], 5)
    equal(found, expected)


def test_a_worked_example() -> None:
    # On a line: the query's neighbours in order are relevant, not, relevant, so R = 2 and
    # R-precision = 1/2, MAP@R = (1 · 1/1 + 0) / 2 = 1/2, recall@1 = 1.
    gallery, gallery_labels = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([7, 8, 7])
    query, labels = torch.tensor([[0.0]]), torch.tensor([7])
    found = retrieval_metrics(query, labels, gallery=gallery, gallery_labels=gallery_labels, metric="euclidean")
    assert found == {
        "recall@1": 1.0,
        "recall@5": 1.0,
        "r_precision": 0.5,
        "map@r": 0.5,
        "queries": 1,
        "queries_left_out": 0,
    }


@pytest.mark.parametrize("sizes", [[4] * 100, [2, 3, 50, 5, 20]])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_agrees_with_pytorch_metric_learning(sizes: list[int], metric: str) -> None:
    accuracy_calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
    from pytorch_metric_learning.utils.inference import CustomKNN

    x, labels = clustered(sizes, dim=16)
    distance = CosineSimilarity() if metric == "cosine" else LpDistance(normalize_embeddings=False)
    theirs = accuracy_calculator.AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=CustomKNN(distance),
    ).get_accuracy(x, labels)
    ours = retrieval_metrics(x, labels, metric=metric)
    # They average in float32.
    assert ours["recall@1"] == pytest.approx(theirs["precision_at_1"], rel=1e-6)
    assert ours["r_precision"] == pytest.approx(theirs["r_precision"], rel=1e-6)
    assert ours["map@r"] == pytest.approx(theirs["mean_average_precision_at_r"], rel=1e-6)


def test_neighbouring_labels_beyond_2_to_the_24_are_different_labels() -> None:
    # float32 cannot tell 2^24 from 2^24 + 1. Here each embedding's nearest has the other label.
    first, second = 2**24, 2**24 + 1
    x = torch.tensor([[0.0], [0.1], [10.0], [10.1]])
    labels = torch.tensor([first, second, first, second])
    found = retrieval_metrics(x, labels, metric="euclidean")
    assert found["recall@1"] == 0
    assert found["r_precision"] == 0
    far = torch.tensor([2**62, 2**62 + 1, 2**62, 2**62 + 1])
    assert retrieval_metrics(x, far, metric="euclidean") == found


@pytest.mark.parametrize("chunk", [1, 50, 1000, None])
def test_the_chunk_size_does_not_change_the_metrics(chunk: int | None) -> None:
    x, labels = clustered([2, 3, 80, 5, 1, 40])
    equal(retrieval_metrics(x.double(), labels, chunk=chunk), retrieval_metrics(x.double(), labels, chunk=10**6))


def test_classes_of_one_image_are_left_out_as_queries_and_stay_in_the_gallery() -> None:
    x = torch.tensor([[0.0], [1.0], [0.4]])
    found = retrieval_metrics(x, torch.tensor([0, 0, 1]), metric="euclidean", ks=(1, 2))
    assert found["queries"] == 2
    assert found["queries_left_out"] == 1
    assert found["recall@1"] == 0  # the single image of class 1 lies between the two of class 0
    assert found["recall@2"] == 1


def test_collapsed_embeddings_score_by_the_rule_for_ties() -> None:
    # Everybody retrieves items 0, 1, 2 … of the others: only class 0, which stands first, is found.
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    found = retrieval_metrics(torch.ones(6, 3), labels, ks=(1,))
    assert found["recall@1"] == pytest.approx(2 / 6)


def test_recall_at_more_than_the_gallery_is_one() -> None:
    assert retrieval_metrics(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), ks=(100,))["recall@100"] == 1


def test_labels_may_be_of_any_integer_dtype() -> None:
    x, labels = clustered([4] * 5)
    expected = retrieval_metrics(x, labels)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert retrieval_metrics(x, labels.to(dtype)) == expected


classes = st.lists(st.integers(2, 6), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(sizes=classes, seed=st.integers(0, 1000))
def test_perfect_embeddings_score_one(sizes: list[int], seed: int) -> None:
    _, labels = clustered(sizes, seed=seed)
    found = retrieval_metrics(torch.eye(len(sizes))[labels], labels)
    assert found["recall@1"] == found["recall@5"] == found["r_precision"] == found["map@r"] == 1


@settings(max_examples=30, deadline=None)
@given(sizes=classes, seed=st.integers(0, 1000))
def test_the_order_of_the_set_and_the_names_of_the_classes_do_not_matter(sizes: list[int], seed: int) -> None:
    x, labels = clustered(sizes, seed=seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    equal(retrieval_metrics(x[order].double(), -7 * labels[order] + 3), retrieval_metrics(x.double(), labels))


@settings(max_examples=30, deadline=None)
@given(sizes=classes, seed=st.integers(0, 1000))
def test_map_at_r_is_at_most_r_precision_and_recall_rises_with_k(sizes: list[int], seed: int) -> None:
    x, labels = clustered(sizes, seed=seed, noise=2.0)
    found = retrieval_metrics(x, labels, ks=(1, 2, 5))
    assert 0 <= found["map@r"] <= found["r_precision"] <= 1
    assert found["recall@1"] <= found["recall@2"] <= found["recall@5"] <= 1


@settings(max_examples=30, deadline=None)
@given(sizes=classes, seed=st.integers(0, 1000))
def test_a_rotation_changes_nothing(sizes: list[int], seed: int) -> None:
    x, labels = clustered(sizes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=generator))
    equal(retrieval_metrics(x.double() @ rotation, labels), retrieval_metrics(x.double(), labels))


X, Y = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": X[0], "labels": Y}, r"embeddings must have shape \(items, dim\)"),
        ({"embeddings": X * math.nan, "labels": Y}, "embeddings has NaN or infinity in 4 of 4 rows, first in row 0"),
        ({"embeddings": X, "labels": Y[:3]}, r"labels must have shape \(4,\), one for every embedding, not \(3,\)"),
        ({"embeddings": X, "labels": Y.float()}, "labels must be integers, not torch.float32"),
        ({"embeddings": X, "labels": Y.bool()}, "labels must be integers, not torch.bool"),
        ({"embeddings": X, "labels": Y.tolist()}, "labels must be a torch.Tensor of 4 integers, not list"),
        ({"embeddings": X, "labels": Y, "gallery": X}, "belong together"),
        ({"embeddings": X, "labels": Y, "gallery_labels": Y}, "belong together"),
        (
            {"embeddings": X, "labels": Y, "gallery": X[:, :1], "gallery_labels": Y},
            "gallery has 1",
        ),
        ({"embeddings": X, "labels": Y, "ks": ()}, "ks must be one or more integers of at least 1"),
        ({"embeddings": X, "labels": Y, "ks": (0,)}, "at least 1"),
        ({"embeddings": X, "labels": torch.arange(4)}, "none of the 4 queries has a gallery item of its label"),
        ({"embeddings": X[:1], "labels": Y[:1]}, "none of the 1 queries"),
    ],
)
def test_wrong_input_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        retrieval_metrics(**arguments)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_computes_what_the_cpu_computes() -> None:
    x, labels = clustered([2, 3, 80, 5, 1, 40])
    equal(retrieval_metrics(x.double().cuda(), labels), retrieval_metrics(x.double(), labels))


def test_queries_in_the_gallery_may_stand_beside_queries_that_are_not() -> None:
    gallery, labels = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    metrics = retrieval_metrics(
        gallery[:2] + 0.1,
        labels[:2],
        gallery=gallery,
        gallery_labels=labels,
        exclude_self=torch.tensor([-1, 1]),
    )
    assert metrics["r_precision"] == metrics["map@r"] == metrics["recall@1"] == 1.0
