"""Exact nearest neighbours: against a brute-force search, and its stated rules."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate import nearest

METRICS = ["cosine", "dot", "euclidean", "squared_euclidean"]


def brute_force(query: Tensor, gallery: Tensor, metric: str) -> np.ndarray:
    """All values in float64, one pair at a time."""
    q, g = query.double().numpy(), gallery.double().numpy()
    if metric == "dot":
        return np.array([[float(a @ b) for b in g] for a in q])
    if metric == "cosine":
        return np.array([[float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)) for b in g] for a in q])
    squared = np.array([[float(((a - b) ** 2).sum()) for b in g] for a in q])
    return squared if metric == "squared_euclidean" else np.sqrt(squared)


def ranked(values: np.ndarray, metric: str) -> np.ndarray:
    """Columns from nearest to farthest, equal ones by rising column."""
    return np.argsort(values if "euclidean" in metric else -values, axis=1, kind="stable")


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 3, 40, 41])
def test_equals_brute_force(metric: str, k: int) -> None:
    query, gallery = random(13, 7), random(41, 7, seed=1)
    values, indices = nearest(query, gallery, k, metric=metric)
    reference = brute_force(query, gallery, metric)
    expected = ranked(reference, metric)[:, :k]
    assert np.array_equal(indices.numpy(), expected)
    # A float32 product of unit-sized numbers.
    np.testing.assert_allclose(values.numpy(), np.take_along_axis(reference, expected, 1), rtol=1e-5, atol=1e-6)
    assert values.dtype == torch.float32
    assert indices.dtype == torch.int64


@pytest.mark.parametrize("metric", METRICS)
def test_float64_embeddings_are_searched_in_float64(metric: str) -> None:
    query, gallery = random(9, 16, dtype=torch.float64), random(30, 16, seed=1, dtype=torch.float64)
    values, _ = nearest(query, gallery, 5, metric=metric)
    reference = np.sort(brute_force(query, gallery, metric), axis=1)
    expected = reference[:, :5] if "euclidean" in metric else reference[:, ::-1][:, :5]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_are_searched_in_float32(dtype: torch.dtype) -> None:
    query, gallery = random(9, 16, dtype=dtype), random(30, 16, seed=1, dtype=dtype)
    values, indices = nearest(query, gallery, 5)
    assert values.dtype == torch.float32
    same_values, same_indices = nearest(query.float(), gallery.float(), 5)
    assert torch.equal(values, same_values)
    assert torch.equal(indices, same_indices)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("chunk", [1, 7, 200, 1000, 10**6])
def test_the_chunk_size_does_not_change_the_result(metric: str, chunk: int) -> None:
    query, gallery = random(50, 8, dtype=torch.float64), random(333, 8, seed=1, dtype=torch.float64)
    values, indices = nearest(query, gallery, 6, metric=metric, chunk=chunk)
    expected_values, expected_indices = nearest(query, gallery, 6, metric=metric)
    assert torch.equal(indices, expected_indices)
    torch.testing.assert_close(values, expected_values, rtol=1e-13, atol=1e-13)


@settings(max_examples=60, deadline=None)
@given(
    # Small integers make every product exact, so that ties are ties; few values make them frequent.
    query=hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(2)), elements=st.integers(-1, 1)),
    gallery=hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(2)), elements=st.integers(-1, 1)),
    metric=st.sampled_from(["dot", "squared_euclidean"]),
    chunk=st.integers(1, 300),
    data=st.data(),
)
def test_of_equal_similarities_the_lower_index_is_nearer(query, gallery, metric, chunk, data) -> None:  # type: ignore[no-untyped-def]
    k = data.draw(st.integers(1, len(gallery)))
    query, gallery = torch.from_numpy(query), torch.from_numpy(gallery)
    if metric == "squared_euclidean":
        # The mean of a gallery and of its mirror image is 0: moving it to the origin rounds nothing.
        gallery = torch.cat([gallery, -gallery])
    _, indices = nearest(query, gallery, k, metric=metric, chunk=chunk)
    assert np.array_equal(indices.numpy(), ranked(brute_force(query, gallery, metric), metric)[:, :k])


@pytest.mark.parametrize("chunk", [10, 100, None])
def test_a_collapsed_gallery_is_returned_in_order(chunk: int | None) -> None:
    _, indices = nearest(torch.ones(3, 4), torch.ones(70, 4), 9, chunk=chunk)
    assert torch.equal(indices, torch.arange(9).expand(3, 9))


@pytest.mark.parametrize("chunk", [16, None])
def test_a_query_does_not_retrieve_itself_but_its_duplicates(chunk: int | None) -> None:
    x = random(20, 4)
    x[7] = x[3]
    _, indices = nearest(x, x, 1, exclude_self=True, chunk=chunk)
    assert indices[7] == 3
    assert indices[3] == 7
    _, every = nearest(x, x, 19, exclude_self=True, chunk=chunk)
    for i, row in enumerate(every.tolist()):
        assert sorted(row) == [j for j in range(20) if j != i]


def test_positions_name_each_querys_own_item() -> None:
    gallery = random(20, 4)
    query = torch.cat([gallery[[5, 11]], gallery[[2]]])
    _, indices = nearest(query, gallery, 19, exclude_self=torch.tensor([5, 11, -1]))
    assert 5 not in indices[0]
    assert 11 not in indices[1]
    assert indices[2, 0] == 2


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cosine_does_not_depend_on_the_embeddings_size(scale: float) -> None:
    query, gallery = random(5, 8), random(30, 8, seed=1)
    values, indices = nearest(query * scale, gallery, 4)
    expected_values, expected_indices = nearest(query, gallery, 4)
    assert torch.equal(indices, expected_indices)
    torch.testing.assert_close(values, expected_values, rtol=1e-6, atol=1e-6)


def test_the_cosine_of_a_zero_vector_is_zero() -> None:
    values, indices = nearest(torch.zeros(1, 3), random(4, 3), 2)
    assert values.tolist() == [[0.0, 0.0]]
    assert indices.tolist() == [[0, 1]]


def test_small_euclidean_distances_far_from_the_origin_keep_their_order() -> None:
    # A million away from the origin |q|² is 1e12, and float32 would lose every distance below 100.
    steps = torch.tensor([3.0, 1.0, 2.0, 4.0, 0.5])
    gallery = torch.full((5, 3), 1e6)
    gallery[:, 0] += steps
    values, indices = nearest(torch.full((1, 3), 1e6), gallery, 5, metric="euclidean")
    assert indices.tolist() == [[4, 1, 2, 0, 3]]
    torch.testing.assert_close(values, torch.tensor([[0.5, 1.0, 2.0, 3.0, 4.0]]), rtol=1e-6, atol=0)


def test_autocast_and_reduced_precision_products_do_not_reach_the_search() -> None:
    query, gallery = random(20, 64), random(200, 64, seed=1)
    expected = nearest(query, gallery, 10)
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = nearest(query, gallery, 10)
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_no_gradient_is_recorded() -> None:
    x = random(6, 3).requires_grad_()
    values, _ = nearest(x, x, 2, metric="euclidean", exclude_self=True)
    assert not values.requires_grad


X = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": X[0], "gallery": X, "k": 1}, r"query must have shape \(items, dim\), .* not \(3,\)"),
        ({"query": X[:0], "gallery": X, "k": 1}, r"query must have shape .* not \(0, 3\)"),
        ({"query": X.long(), "gallery": X, "k": 1}, "query must be floating point, not torch.int64"),
        ({"query": X.tolist(), "gallery": X, "k": 1}, "query must be a torch.Tensor .* not list"),
        ({"query": X, "gallery": X[:, :2], "k": 1}, "queries have 3 dimensions and the gallery has 2"),
        ({"query": X, "gallery": X, "k": 0}, "k is 0, but must be an integer from 1 to 4, the gallery's size$"),
        ({"query": X, "gallery": X, "k": 5}, "k is 5, but .* from 1 to 4"),
        (
            {"query": X, "gallery": X, "k": 4, "exclude_self": True},
            "from 1 to 3, .* without the query itself",
        ),
        ({"query": X[:2], "gallery": X, "k": 1, "exclude_self": True}, "2 queries and 4 gallery items"),
        ({"query": X, "gallery": X, "k": 1, "exclude_self": torch.tensor([0, 1, 2, 4])}, "from -1 to 3, .* 0 to 4"),
        ({"query": X, "gallery": X, "k": 1, "exclude_self": torch.tensor([0, 1])}, r"shape \(4,\)"),
        ({"query": X, "gallery": X, "k": 1, "exclude_self": torch.ones(4)}, "must be integers, not torch.float32"),
        ({"query": X, "gallery": X, "k": 1, "metric": "manhattan"}, "'manhattan', but must be one of cosine, dot"),
        ({"query": X, "gallery": X, "k": 1, "chunk": 0}, "chunk is 0, but must be a positive"),
        (
            {"query": X * 1e30, "gallery": X * 1e30, "k": 1, "metric": "dot"},
            "their dot overflows torch.float32",
        ),
    ],
)
def test_wrong_input_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        nearest(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_row_that_is_not_finite_is_named(value: float) -> None:
    broken = X.clone()
    broken[2, 1] = value
    with pytest.raises(InputError, match="gallery has NaN or infinity in 1 of 4 rows, first in row 2"):
        nearest(X, broken, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the resident memory from /proc")
def test_ten_thousand_embeddings_take_less_than_50_mb() -> None:
    # The full similarity matrix alone would take 400 MB. A process of its own, so that nothing else is in the peak.
    program = """
import torch
from nearfar.evaluate import retrieval_metrics
def kilobytes(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))
x, labels = torch.randn(10_000, 128), torch.arange(10_000) // 4
retrieval_metrics(x[:400], labels[:400])
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
retrieval_metrics(x, labels)
print((kilobytes("VmHWM") - before) / 1024)
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(output) < 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("chunk", [1000, None])
def test_a_gpu_finds_what_the_cpu_finds(metric: str, chunk: int | None) -> None:
    query, gallery = random(50, 16, dtype=torch.float64), random(700, 16, seed=1, dtype=torch.float64)
    values, indices = nearest(query.cuda(), gallery.cuda(), 8, metric=metric, chunk=chunk)
    expected_values, expected_indices = nearest(query, gallery, 8, metric=metric)
    assert indices.is_cuda
    assert torch.equal(indices.cpu(), expected_indices)
    torch.testing.assert_close(values.cpu(), expected_values, rtol=1e-12, atol=1e-12)
