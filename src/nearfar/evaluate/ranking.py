"""Whole rankings of queries against a gallery: average precision, reciprocal rank, precision, match rates, MAP@R."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate.retrieval import checked_ks
from nearfar.evaluate.topk import Gallery, check_embeddings, check_fit, check_integers


def ranking_metrics(
    query: Tensor,
    labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    cameras: Tensor | None = None,
    gallery_cameras: Tensor | None = None,
    similarities: Tensor | Callable[[int, int], Tensor] | None = None,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int | None = None,
) -> dict[str, float]:
    r"""How the whole gallery is ranked for each query, by cosine.

    With :math:`r_i = 1` if the :math:`i`-th item is relevant, :math:`R` relevant items and :math:`P(i)` the share of
    them among the first :math:`i`, averaged over the queries:

    .. math::

        \text{AP} = \frac1R \sum_i r_i \, P(i) \qquad
        \text{RR} = \max_i \frac{r_i}{i} \qquad
        \text{precision@}k = P(k) \qquad
        \text{cmc@}k = \max_{i \le k} r_i \qquad
        \text{INP} = \frac{R}{\max \{ i : r_i = 1 \}}

    R-precision and MAP@R, of the first :math:`R` items, are those of :func:`~nearfar.evaluate.retrieval_metrics`.

    With cameras (or sequences), items of the query's own identity and camera are taken out of its ranking, as
    re-identification does: they are the next frames of the same film. Average precision is the sum above, as
    scikit-learn has it; Market-1501's first code took the mean of the precision before and after each hit, which is
    lower. The query itself is in the gallery only where you put it there: then give it a camera of its own kind.

    Parameters
    ----------
    query : Tensor
        (n, d) finite.
    labels : Tensor
        (n,) integers.
    gallery, gallery_labels : Tensor
        (m, d) and (m,).
    cameras, gallery_cameras : Tensor, optional
        (n,) and (m,) integers: both or neither.
    similarities : Tensor or callable, optional
        (n, m) finite: what is ranked by in place of cosines, such as re-ranked distances with their sign turned; or
        what gives the rows of it from a start to a stop, so that not all are there at once.
    ks : sequence of int
        [1..inf] Of precision@k and cmc@k; where fewer items than k are left, those.
    chunk : int, optional
        The number of similarities held at once, as in :func:`~nearfar.evaluate.nearest`.

    Returns
    -------
    dict
        ``map``, ``mrr``, ``minp``, ``r_precision``, ``map@r``, ``precision@k``, ``cmc@k``, each in [0, 1]; ``queries``
        and ``queries_left_out``, those without a relevant item.

    Raises
    ------
    InputError
        A shape, dtype or value does not fit, cameras are given for one side only, or no query has a relevant item.

    References
    ----------
    Zheng, Shen, Tian, Wang, Wang, Tian (2015). Scalable Person Re-identification: A Benchmark. ICCV (the protocol).
    Ye, Shen, Lin, Xiang, Shao, Hoi (2021). Deep Learning for Person Re-identification. arXiv:2001.04193 (mINP).
    """
    queries, scores = ranking_scores(
        query,
        labels,
        gallery,
        gallery_labels,
        cameras=cameras,
        gallery_cameras=gallery_cameras,
        similarities=similarities,
        ks=ks,
        chunk=chunk,
    )
    values = {name: float(column.mean()) for name, column in scores.items()}
    return values | {"queries": len(queries), "queries_left_out": len(query) - len(queries)}


def ranking_scores(
    query: Tensor,
    labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    cameras: Tensor | None = None,
    gallery_cameras: Tensor | None = None,
    similarities: Tensor | Callable[[int, int], Tensor] | None = None,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The metrics of each query, of which :func:`ranking_metrics` is the average; its arguments are as there.

    Returns
    -------
    queries : Tensor
        (rows,) int64, positions of those that have a relevant item.
    scores : dict of str to Tensor
        (rows,) float64 each.
    """
    check_embeddings("query", query)
    check_integers("labels", labels, len(query))
    check_embeddings("gallery", gallery)
    check_integers("gallery_labels", gallery_labels, len(gallery))
    check_fit(query, gallery)
    if (cameras is None) != (gallery_cameras is None):
        raise InputError("cameras and gallery_cameras belong together: pass both or neither")
    if isinstance(similarities, Tensor):
        _check_similarities(similarities, len(query), len(gallery))
    ks = checked_ks(ks)
    device = query.device
    labels, gallery_labels = labels.to(device), gallery_labels.to(device)
    if cameras is not None and gallery_cameras is not None:
        check_integers("cameras", cameras, len(query))
        check_integers("gallery_cameras", gallery_cameras, len(gallery))
        cameras, gallery_cameras = cameras.to(device), gallery_cameras.to(device)
    index = Gallery(gallery.to(torch.promote_types(query.dtype, gallery.dtype)), metric="cosine", chunk=chunk)
    scores = []
    # Similarities, their order and what is counted along it: some sixteen numbers an item.
    rows = max(1, index.chunk // (4 * len(gallery)))
    for start in range(0, len(query), rows):
        tile = slice(start, start + rows)
        same = labels[tile, None] == gallery_labels
        excluded = torch.zeros_like(same)
        if cameras is not None and gallery_cameras is not None:
            excluded = same & (cameras[tile, None] == gallery_cameras)
        if similarities is None:
            ranked_by = index.similarities(query[tile])
        elif isinstance(similarities, Tensor):
            ranked_by = similarities[tile].to(device)
        else:
            ranked_by = similarities(start, min(start + rows, len(query))).to(device)
            _check_similarities(ranked_by, len(same), len(gallery))
        ranked_by = ranked_by.masked_fill(excluded, -torch.inf)
        hits = (same & ~excluded).gather(1, ranked_by.argsort(dim=1, descending=True, stable=True))
        scores.append(_score(hits, (~excluded).sum(1), ks))
    found = torch.cat(scores)
    kept = found[:, 0].isfinite()
    if not bool(kept.any()):
        message = f"none of the {len(query)} queries has a gallery item of its label to be found"
        if cameras is not None and gallery_cameras is not None and bool(torch.isin(labels, gallery_labels).any()):
            alone = bool((torch.cat([cameras, gallery_cameras]) == cameras[0]).all())
            seen = "all images are of one camera" if alone else "each label is seen by one camera only"
            message += f" by another camera than its own, whose items are left out: {seen}, so leave cameras out"
        raise InputError(message)
    names = [
        "map",
        "mrr",
        "minp",
        "r_precision",
        "map@r",
        *(f"{name}@{k}" for name in ("precision", "cmc") for k in ks),
    ]
    return kept.nonzero()[:, 0], dict(zip(names, found[kept].T, strict=True))


def _check_similarities(similarities: Tensor, rows: int, columns: int) -> None:
    if similarities.shape != (rows, columns) or not similarities.isfinite().all():
        raise InputError(f"similarities must be finite, ({rows}, {columns}), not {tuple(similarities.shape)}")


def _score(hits: Tensor, available: Tensor, ks: Sequence[int]) -> Tensor:
    """The metrics of each query, float64, (rows, 5 + 2 len(ks)); NaN where nothing is relevant.

    ``hits`` (rows, m) in the order of the ranking, what is excluded last; ``available`` (rows,) items of each.
    """
    rank = torch.arange(1, hits.shape[1] + 1, device=hits.device, dtype=torch.float64)
    found = hits.cumsum(1).double()
    relevant = found[:, -1]
    precision = found / rank
    average = (precision * hits).sum(1) / relevant
    reciprocal = (hits / rank).amax(1)
    last = (hits * rank).amax(1)
    among = hits & (rank <= relevant[:, None])
    first = among.sum(1) / relevant, (precision * among).sum(1) / relevant
    at = [torch.minimum(available, torch.tensor(k, device=hits.device)).clamp_min(1) for k in ks]
    precisions = [precision.gather(1, k[:, None] - 1)[:, 0] for k in at]
    matches = [(found.gather(1, k[:, None] - 1)[:, 0] > 0).double() for k in at]
    return torch.stack([average, reciprocal, relevant / last, *first, *precisions, *matches], 1)
