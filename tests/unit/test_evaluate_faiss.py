"""faiss finds what torch finds, up to rounding and to which of equal items are the last of the k."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from nearfar.errors import InputError, MissingExtra
from nearfar.evaluate import KReciprocal, expand_queries, nearest, retrieval_metrics

try:
    import faiss  # noqa: F401
except ImportError:
    FAISS = False
else:
    FAISS = True

needs_faiss = pytest.mark.skipif(not FAISS, reason="needs faiss, of nearfar[search]")


def clustered(count: int = 600, dim: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings of normal clouds, some classes of many and some of one."""
    generator = torch.Generator().manual_seed(seed)
    labels = (40 * torch.rand(count, generator=generator).square()).long()
    centres = torch.randn(40, dim, generator=generator)
    return centres[labels] + torch.randn(count, dim, generator=generator), labels


@needs_faiss
@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("exclude", ["nobody", "each itself", "some"])
@pytest.mark.parametrize("k", [1, 7, 599])
def test_neighbours_are_those_of_torch(metric: str, exclude: str, k: int) -> None:
    x, _ = clustered()
    own: bool | Tensor = exclude == "each itself"
    if exclude == "some":
        own = torch.where(torch.arange(600) % 3 == 0, torch.arange(600), -1)
    expected = nearest(x, x, k, metric=metric, exclude_self=own)  # type: ignore[arg-type]
    values, indices = nearest(x, x, k, metric=metric, exclude_self=own, engine="faiss")  # type: ignore[arg-type]
    torch.testing.assert_close(values, expected[0], rtol=1e-5, atol=1e-5)
    # Two that are as near to float32 may change places.
    assert float((indices == expected[1]).double().mean()) > 0.999
    if exclude == "each itself":
        assert not bool((indices == torch.arange(600)[:, None]).any())


@needs_faiss
@pytest.mark.parametrize("gallery", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_retrieval_has_the_same_figures(gallery: bool, dtype: torch.dtype) -> None:
    x, labels = clustered()
    words = {"gallery": x[200:].to(dtype), "gallery_labels": labels[200:]} if gallery else {}
    query, asked = (x[:200], labels[:200]) if gallery else (x, labels)
    expected = retrieval_metrics(query.to(dtype), asked, ks=(1, 5, 50), **words)
    found = retrieval_metrics(query.to(dtype), asked, ks=(1, 5, 50), engine="faiss", **words)
    assert found == pytest.approx(expected, abs=2e-5)
    assert 0.1 < found["map@r"] < 0.9


@needs_faiss
def test_what_is_equal_stands_by_rising_index() -> None:
    x = torch.eye(3).repeat(5, 1)
    values, indices = nearest(x[:1], x, 5, engine="faiss")
    assert indices.tolist() == [[0, 3, 6, 9, 12]]
    assert values.tolist() == [[1.0] * 5]


@needs_faiss
def test_what_looks_for_neighbours_takes_the_engine_too() -> None:
    x, _ = clustered()
    expanded = expand_queries(x[:50], x[50:], k=4)
    torch.testing.assert_close(expand_queries(x[:50], x[50:], k=4, engine="faiss"), expanded, rtol=1e-5, atol=1e-5)
    ranked = KReciprocal(x[:50], x[50:]).rows(0, 50)
    found = KReciprocal(x[:50], x[50:], engine="faiss").rows(0, 50)
    torch.testing.assert_close(found, ranked, rtol=1e-5, atol=1e-5)


@needs_faiss
@pytest.mark.parametrize("metric", ["euclidean", "squared_euclidean"])
def test_distances_are_left_to_torch(metric: str) -> None:
    x, labels = clustered()
    with pytest.raises(InputError, match=f"metric is '{metric}', and faiss computes distances in float32"):
        retrieval_metrics(x, labels, metric=metric, engine="faiss")  # type: ignore[arg-type]


@needs_faiss
def test_what_overflows_is_told() -> None:
    x = torch.full((4, 3), 1e30)
    with pytest.raises(InputError, match="their dot overflows"):
        nearest(x, x, 1, metric="dot", engine="faiss")


def test_an_unknown_engine_is_refused() -> None:
    x, labels = clustered()
    with pytest.raises(InputError, match="engine is 'annoy', but must be one of torch, faiss"):
        retrieval_metrics(x, labels, engine="annoy")  # type: ignore[arg-type]


def test_without_faiss_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    x, labels = clustered()
    with pytest.raises(MissingExtra, match=r"nearfar\[search\]"):
        retrieval_metrics(x, labels, engine="faiss")
