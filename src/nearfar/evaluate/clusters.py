"""Clustering: whether groups that k-means finds in the embeddings are the classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import InputError, MissingExtra
from nearfar.evaluate.topk import check_embeddings, check_integers


def clustering_metrics(
    embeddings: Tensor, labels: Tensor, *, clusters: int | None = None, seed: int = 0
) -> dict[str, float]:
    """Mutual information of the classes with clusters of the embeddings, by scikit-learn.

    NMI grows with the number of clusters also where they are drawn at random; AMI does not, so prefer it (Musgrave
    et al. 2020, section 2.1).

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite; scaled to length one first.
    labels : Tensor
        (n,) integers.
    clusters : int, optional
        [1..n] Of k-means; unless given, the number of classes.
    seed : int
        Of k-means.

    Returns
    -------
    dict
        ``nmi`` (arithmetic mean) and ``ami``.

    Raises
    ------
    InputError
        A shape, dtype or value does not fit.
    MissingExtra
        scikit-learn is missing.
    """
    check_embeddings("embeddings", embeddings)
    check_integers("labels", labels, len(embeddings))
    count = len(torch.unique(labels)) if clusters is None else clusters
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(embeddings):
        raise InputError(f"clusters is {count!r}, but must be an integer from 1 to {len(embeddings)}")
    try:
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
    except ImportError as error:
        raise MissingExtra("clustering metrics", extra="evaluate") from error
    x = F.normalize(embeddings.detach().double().cpu(), dim=1).numpy()
    classes = labels.cpu().numpy()
    found = KMeans(count, n_init=1, random_state=seed).fit_predict(x)
    return {
        "nmi": float(normalized_mutual_info_score(classes, found)),
        "ami": float(adjusted_mutual_info_score(classes, found)),
    }
