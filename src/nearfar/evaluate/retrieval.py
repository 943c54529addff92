"""Retrieval metrics: recall@k, R-precision and MAP@R.

K. Musgrave, S. Belongie, S.-N. Lim, A Metric Learning Reality Check, 2020, arXiv:2003.08505.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate.topk import (
    Engine,
    Metric,
    check_embeddings,
    check_fit,
    check_integers,
    searchable,
    self_positions,
)


def retrieval_metrics(
    embeddings: Tensor,
    labels: Tensor,
    *,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    ks: Sequence[int] = (1, 5),
    exclude_self: bool | Tensor | None = None,
    metric: Metric = "cosine",
    chunk: int | None = None,
    engine: Engine = "torch",
) -> dict[str, float]:
    r"""How well the nearest neighbours of each embedding share its label.

    For a query with :math:`R` relevant gallery items (those of its label, without the query itself), let
    :math:`r_i = 1` if its :math:`i`-th nearest item is relevant and 0 if not. Then, averaged over the queries,

    .. math::

        \text{recall@}k = \max_{i \le k} r_i \qquad
        \text{R-precision} = \frac1R \sum_{i=1}^R r_i \qquad
        \text{MAP@R} = \frac1R \sum_{i=1}^R r_i \, P(i), \quad P(i) = \frac1i \sum_{j=1}^i r_j

    R-precision and MAP@R are those of Musgrave et al. (2020), section 2.5; recall@k is the field's (Jegou et al.,
    2011): the share of queries with at least one relevant item among the k nearest. A query without a relevant item
    (R = 0) has no R-precision and no chance of recall: it is left out of every average, and counted.

    Parameters
    ----------
    embeddings : Tensor, shape (queries, dim)
        Finite, floating point.
    labels : Tensor of integers, shape (queries,)
        Any int64 is a label of its own: labels are compared as integers.
    gallery, gallery_labels : Tensor of shape (items, dim) and of shape (items,), optional
        What to search. Without them every embedding searches all others.
    ks : sequence of int, default (1, 5)
        The k of recall@k, each at least 1. Where the gallery holds fewer than k items, all of them are the k nearest
        and recall@k is 1 by its definition; nothing is raised, so that a small set can be evaluated.
    exclude_self : bool or Tensor of shape (queries,), optional
        As in :func:`nearfar.evaluate.nearest`. Default: True without a gallery, False with one.
    metric, chunk, engine
        As in :func:`nearfar.evaluate.nearest`, whose rule for ties holds here too.

    Returns
    -------
    dict
        ``recall@k`` for every k, ``r_precision`` and ``map@r``, each in [0, 1]; ``queries``, the number of queries
        averaged; ``queries_left_out``, the number that have no relevant item.

    Raises
    ------
    InputError
        Wrong shape, dtype or device, NaN or infinity, only one of `gallery` and `gallery_labels`, no query that has a
        relevant item, or a metric that the engine does not have.
    MissingExtra
        faiss is missing, and asked for.
    """
    queries, scores = query_scores(
        embeddings,
        labels,
        gallery=gallery,
        gallery_labels=gallery_labels,
        ks=ks,
        exclude_self=exclude_self,
        metric=metric,
        chunk=chunk,
        engine=engine,
    )
    *recalls, r_precision, map_at_r = scores.mean(0).tolist()
    return {
        **{f"recall@{k}": recall for k, recall in zip(tuple(ks), recalls, strict=True)},
        "r_precision": r_precision,
        "map@r": map_at_r,
        "queries": len(queries),
        "queries_left_out": len(embeddings) - len(queries),
    }


def query_scores(
    embeddings: Tensor,
    labels: Tensor,
    *,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    ks: Sequence[int] = (1, 5),
    exclude_self: bool | Tensor | None = None,
    metric: Metric = "cosine",
    chunk: int | None = None,
    engine: Engine = "torch",
) -> tuple[Tensor, Tensor]:
    """The metrics of each query, of which :func:`retrieval_metrics` is the average; its arguments are as there.

    Returns
    -------
    queries : Tensor
        (rows,) int64, positions of those that have a relevant item, by rising number of them.
    scores : Tensor
        (rows, len(ks) + 2) float64: recall at each k, R-precision, MAP@R.
    """
    check_embeddings("embeddings", embeddings)
    check_integers("labels", labels, len(embeddings))
    if (gallery is None) != (gallery_labels is None):
        raise InputError("gallery and gallery_labels belong together: pass both or neither")
    if exclude_self is None:
        exclude_self = gallery is None
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels = embeddings, labels
    else:
        check_embeddings("gallery", gallery)
        check_integers("gallery_labels", gallery_labels, len(gallery))
        check_fit(embeddings, gallery)
    ks = checked_ks(ks)
    self_index = self_positions(exclude_self, embeddings, gallery)
    device = embeddings.device
    labels, gallery_labels = (given.to(device, torch.int64).contiguous() for given in (labels, gallery_labels))

    relevant = _count_relevant(labels, gallery_labels, self_index)
    # Searched in the order of R, so that a class of thousands does not lengthen everybody's list of neighbours.
    queries = relevant.argsort(stable=True)[int((relevant == 0).sum()) :]
    if not len(queries):
        raise InputError(f"none of the {len(embeddings)} queries has a gallery item of its label to be found")
    index = searchable(gallery, embeddings, metric=metric, chunk=chunk, engine=engine)
    # A query that is in the gallery comes last among its own neighbours, where it counts for nothing; there is no
    # place for it only where every query is.
    available = index.size - (self_index is not None and bool((self_index >= 0).all()))
    sorted_relevant = relevant[queries].tolist()
    # One row a query: recall at each k, R-precision, MAP@R. Allocated once, because small results kept between the
    # large temporaries of many tiles would fragment the heap.
    scores = torch.empty(len(queries), len(ks) + 2, dtype=torch.float64, device=device)
    start = 0
    while start < len(queries):
        stop = start + index.rows(min(max(sorted_relevant[start], *ks), available))
        tile = queries[start:stop]
        k = min(max(sorted_relevant[start:stop][-1], *ks), available)
        _, found = index.search(embeddings[tile], k, None if self_index is None else self_index[tile])
        hits = gallery_labels[found] == labels[tile].unsqueeze(1)
        scores[start:stop] = _score(hits, relevant[tile], ks)
        start = stop
    return queries, scores


def _score(hits: Tensor, relevant: Tensor, ks: Sequence[int]) -> Tensor:
    """Recall at each k, R-precision and MAP@R, float64, shape (queries, len(ks) + 2).

    `hits` are the r_i, shape (queries, k), and `relevant` their R, shape (queries,).
    """
    recalls = [hits[:, :k].any(1) for k in ks]
    rank = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    hits = hits & (rank <= relevant.unsqueeze(1))
    # Counted in int64 and divided in float64: a float32 sum of hits is off beyond 2^24.
    r_precision = hits.sum(1) / relevant.double()
    map_at_r = (hits.cumsum(1) / rank.double()).mul_(hits).sum(1) / relevant
    return torch.stack([*(recall.double() for recall in recalls), r_precision, map_at_r], 1)


def _count_relevant(labels: Tensor, gallery_labels: Tensor, self_index: Tensor | None) -> Tensor:
    """R of every query, shape (queries,): the gallery items of its label, without itself."""
    ordered = gallery_labels.sort().values
    relevant = torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels)
    if self_index is not None:
        relevant = relevant - ((self_index >= 0) & (gallery_labels[self_index] == labels)).long()
    return relevant


def checked_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """Raise an InputError unless there are one or more integers of at least 1."""
    ks = tuple(ks)
    if not ks or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in ks):
        raise InputError(f"ks must be one or more integers of at least 1, not {ks!r}")
    return ks
