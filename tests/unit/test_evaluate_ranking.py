"""Rankings, clusters and what is done to a ranking afterwards: against definitions and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate import (
    KReciprocal,
    clustering_metrics,
    expand_queries,
    k_reciprocal,
    nearest,
    ranking_metrics,
    retrieval_metrics,
)
from nearfar.testing.meter import peak_bytes


def crowd(people: int = 8, images: int = 6, seed: int = 0, noise: float = 1.2) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, identities and cameras."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(people).repeat_interleave(images)
    x = torch.randn(people, 8, generator=generator)[labels] + noise * torch.randn(len(labels), 8, generator=generator)
    return x, labels, torch.arange(len(labels)) % 3


@pytest.mark.parametrize("chunk", [None, 200])
@pytest.mark.parametrize("by_camera", [False, True])
def test_rankings_are_their_definition(by_camera: bool, chunk: int | None) -> None:
    query, labels, cameras = crowd(seed=1)
    gallery, gallery_labels, gallery_cameras = crowd(seed=1)
    gallery = gallery + 0.5 * torch.randn(gallery.shape, generator=torch.Generator().manual_seed(2))
    given = {"cameras": cameras, "gallery_cameras": gallery_cameras} if by_camera else {}
    found = ranking_metrics(query, labels, gallery, gallery_labels, ks=(1, 3, 100), chunk=chunk, **given)
    rows = []
    for q, label, camera in zip(query, labels.tolist(), cameras.tolist(), strict=True):
        kept = [
            j
            for j in range(len(gallery))
            if not (by_camera and gallery_labels[j] == label and gallery_cameras[j] == camera)
        ]
        similarity = torch.stack([torch.cosine_similarity(q, gallery[j], dim=0) for j in kept])
        hit = np.array([int(gallery_labels[j] == label) for j in kept])
        ordered = hit[similarity.argsort(descending=True).numpy()]
        where = np.flatnonzero(ordered) + 1
        rows.append(
            [
                average_precision_score(hit, similarity.numpy()),
                1 / where[0],
                len(where) / where[-1],
                ordered[:3].mean(),
                ordered.mean(),
                float(ordered[:3].any()),
            ]
        )
    expected = np.mean(rows, 0)
    names = ["map", "mrr", "minp", "precision@3", "precision@100", "cmc@3"]
    np.testing.assert_allclose([found[name] for name in names], expected, atol=1e-6)
    assert found["queries"] == len(labels)


def test_of_the_own_camera_nothing_counts() -> None:
    x, labels, _ = crowd()
    same_camera = torch.zeros_like(labels)
    with pytest.raises(InputError, match="none of the 48 queries"):
        ranking_metrics(x, labels, x, labels, cameras=same_camera, gallery_cameras=same_camera)


def test_cameras_of_one_side_are_refused() -> None:
    x, labels, cameras = crowd()
    with pytest.raises(InputError, match="belong together"):
        ranking_metrics(x, labels, x, labels, cameras=cameras)


@pytest.mark.parametrize(
    ("cameras", "seen"), [(1, "all images are of one camera"), (8, "each label is seen by one camera only")]
)
def test_what_no_other_camera_saw_is_told_with_the_reason(cameras: int, seen: str) -> None:
    x, labels, _ = crowd()
    of = labels % cameras
    with pytest.raises(InputError, match=f"by another camera than its own, whose items are left out: {seen}"):
        ranking_metrics(x, labels, x, labels, cameras=of, gallery_cameras=of)


def test_an_expanded_query_is_the_sum_of_itself_and_what_it_finds() -> None:
    x, *_ = crowd()
    query, gallery = x[:5], x[5:]
    found = expand_queries(query, gallery, k=3, alpha=2.0)
    similarities, indices = nearest(query, gallery, 3)
    unit = F.normalize(gallery, dim=1)
    expected = F.normalize(query, dim=1) + (similarities.clamp_min(0)[:, :, None] ** 2 * unit[indices]).sum(1)
    torch.testing.assert_close(found, F.normalize(expected, dim=1))


def test_expansion_and_re_ranking_help_where_classes_are_clusters() -> None:
    x, labels, _ = crowd(12, 20, noise=0.8)
    query, gallery = x[::2], x[1::2]
    plain = ranking_metrics(query, labels[::2], gallery, labels[1::2])["map"]
    expanded = ranking_metrics(expand_queries(query, gallery, k=3), labels[::2], gallery, labels[1::2])["map"]
    distances = k_reciprocal(query, gallery, k1=10, k2=3)
    hits = labels[1::2] == labels[::2, None]
    again = np.mean([average_precision_score(h, -d) for h, d in zip(hits.numpy(), distances.numpy(), strict=True)])
    assert expanded > plain
    assert again > plain


def reciprocal_by_hand(x: np.ndarray, n: int, k1: int, k2: int, weight: float) -> np.ndarray:
    """The paper's sets and sums, element by element, in float64."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    squared = ((x[:, None] - x[None]) ** 2).sum(2)
    d = squared / squared.max(1, keepdims=True)
    order = np.argsort(squared, 1, kind="stable")

    def reciprocal(p: int, k: int) -> set[int]:
        return {q for q in order[p, : k + 1] if p in order[q, : k + 1]}

    V = np.zeros_like(d)
    for p in range(len(x)):
        own = reciprocal(p, k1)
        grown = set(own)
        for q in own:
            theirs = reciprocal(q, round(k1 / 2))
            if len(theirs & own) > 2 / 3 * len(theirs):
                grown |= theirs
        for q in grown:
            V[p, q] = np.exp(-d[p, q])
        V[p] /= V[p].sum()
    V = np.stack([V[order[p, :k2]].mean(0) for p in range(len(x))])
    jaccard = np.array(
        [[1 - np.minimum(V[p], V[g]).sum() / np.maximum(V[p], V[g]).sum() for g in range(n, len(x))] for p in range(n)]
    )
    return (1 - weight) * jaccard + weight * d[:n, n:]


@pytest.mark.parametrize(("k1", "k2", "weight"), [(6, 3, 0.3), (5, 1, 0.0), (20, 6, 0.3), (2, 9, 0.5), (40, 40, 0.3)])
def test_re_ranked_distances_are_the_papers(k1: int, k2: int, weight: float) -> None:
    x, *_ = crowd(5, 8)
    found = k_reciprocal(x[:10], x[10:], k1=k1, k2=k2, weight=weight)
    np.testing.assert_allclose(found, reciprocal_by_hand(x.double().numpy(), 10, k1, k2, weight), atol=2e-5)


def test_re_ranked_distances_come_in_parts_and_are_ranked_in_parts() -> None:
    x, labels, _ = crowd(12, 20, noise=0.8)
    query, gallery, asked, held = x[::2], x[1::2], labels[::2], labels[1::2]
    parts = KReciprocal(query, gallery, k1=10, k2=3)
    whole = k_reciprocal(query, gallery, k1=10, k2=3)
    assert torch.equal(torch.cat([parts.rows(start, start + 7) for start in range(0, len(query), 7)]), whole)
    seen: list[tuple[int, int]] = []

    def nearness(start: int, stop: int) -> torch.Tensor:
        seen.append((start, stop))
        return -parts.rows(start, stop)

    found = ranking_metrics(query, asked, gallery, held, similarities=nearness, chunk=4 * 50 * len(gallery))
    assert seen == [(0, 50), (50, 100), (100, 120)]
    assert found == ranking_metrics(query, asked, gallery, held, similarities=-whole)
    with pytest.raises(InputError, match=r"similarities must be finite, \(120, 120\), not \(1, 120\)"):
        ranking_metrics(query, asked, gallery, held, similarities=lambda start, stop: -parts.rows(start, start + 1))


def test_no_matrix_of_all_with_all_is_made_for_re_ranking() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 8, generator=generator)
    # All with all are 64 MB of float32, and queries with the gallery 16.
    assert peak_bytes(lambda: KReciprocal(x[:2000], x[2000:]).rows(0, 10)) < 12e6


def test_each_of_many_that_are_equal_is_its_own_neighbour() -> None:
    x = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(12, 1), torch.tensor([[0.0, 1.0]]).repeat(4, 1)])
    found = k_reciprocal(x[-2:], x[:-2], k1=3, k2=1)
    assert bool(found.isfinite().all())
    assert float(found[:, -2:].max()) < float(found[:, :-2].min())
    alike = k_reciprocal(x[:4], x[4:12], k1=2, k2=1, weight=1.0)
    assert torch.equal(alike, torch.zeros(4, 8))


@pytest.mark.parametrize("clusters", [0, 49, 2.0])
def test_as_many_clusters_as_embeddings_are_the_most(clusters: int) -> None:
    x, labels, _ = crowd()
    with pytest.raises(InputError, match="from 1 to 48"):
        clustering_metrics(x, labels, clusters=clusters)


def test_clusters_that_are_the_classes_share_all_their_information() -> None:
    x, labels, _ = crowd(noise=0.01)
    assert clustering_metrics(x, labels) == {"nmi": pytest.approx(1.0), "ami": pytest.approx(1.0)}
    generator = torch.Generator().manual_seed(0)
    chance = clustering_metrics(torch.randn(200, 4, generator=generator), torch.arange(200) % 50)
    assert abs(chance["ami"]) < 0.1
    assert chance["nmi"] > 0.5


def test_precision_and_recall_at_one_agree() -> None:
    x, labels, _ = crowd()
    ranked = ranking_metrics(x[::2], labels[::2], x[1::2], labels[1::2], ks=(1,))
    retrieved = retrieval_metrics(x[::2], labels[::2], gallery=x[1::2], gallery_labels=labels[1::2], ks=(1,))
    assert ranked["precision@1"] == ranked["cmc@1"] == retrieved["recall@1"]
