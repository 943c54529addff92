"""Offline mining: of a whole data set each anchor's farthest positives and nearest negatives.

Schroff, Kalenichenko, Philbin (2015): FaceNet: A Unified Embedding for Face Recognition and Clustering, section 3.2.
arXiv:1503.03832.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import ArgumentError, InputError
from nearfar.evaluate import nearest
from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import check_embeddings, check_labels

__all__ = ["Hardest", "hardest"]

#: How many numbers are worked on at a time.
_CHUNK = 2**22

#: Queries and a number of neighbours → the places of these in the gallery, (queries, k), the nearest first.
_Search = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Hardest:
    """What is hard of a data set of n embeddings, as places in it.

    Attributes
    ----------
    anchors
        (m,) those that have a positive and a negative, in order.
    positives
        (m, p) of each its farthest positives, the farthest first; −1 where it has fewer.
    negatives
        (m, q) of each its nearest negatives, the nearest first; −1 where it has fewer.
    """

    anchors: Tensor
    positives: Tensor
    negatives: Tensor

    def triplets(self) -> tuple[Tensor, Tensor, Tensor]:
        """Each anchor with each of its positives and each of its negatives: an ``indices_tuple`` of the data set."""
        m, p, q = len(self.anchors), self.positives.shape[1], self.negatives.shape[1]
        a = self.anchors[:, None, None].expand(m, p, q)
        positive, negative = self.positives[:, :, None].expand(m, p, q), self.negatives[:, None].expand(m, p, q)
        there = (positive >= 0) & (negative >= 0)
        return a[there], positive[there], negative[there]


def hardest(
    embeddings: Tensor,
    labels: Tensor,
    *,
    positives: int = 1,
    negatives: int = 1,
    absolute_margin: float = 0.0,
    relative_margin: float = 0.0,
    backend: Literal["auto", "faiss", "torch"] = "auto",
) -> Hardest:
    """Find the farthest positives and the nearest negatives of every embedding.

    Distances are Euclidean, of normalised embeddings. Of equal ones the lower place comes first. Neighbours are
    searched for in lists that grow until they hold enough negatives, so that no matrix of all pairs is made.

    Parameters
    ----------
    embeddings : Tensor
        (n, d), finite; :func:`nearfar.train.table.embed` makes them of a model and a source.
    labels : Tensor
        (n,) class ids.
    positives, negatives : int
        [1..inf] How many of each anchor.
    absolute_margin : float
        [units of the distance, 0..2] A negative nearer than this is left out as a near-duplicate: most likely its label
        is wrong.
    relative_margin : float
        [0..inf] A negative nearer than so many times the anchor's farthest positive is left out.
    backend : {"auto", "faiss", "torch"}
        What searches; ``auto`` is faiss where it is installed (``pip install nearfar[search]``) and the embeddings are
        on the CPU. Both find the same, ties at the end of a list but for rounding.

    Returns
    -------
    Hardest

    Raises
    ------
    InputError
        Shapes or dtypes do not fit, or an embedding is not finite.
    ArgumentError
        A number is out of its range, or faiss was asked for and is not installed.
    """
    for name, value in (("positives", positives), ("negatives", negatives)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(f"{name} must be a whole number of at least 1; got {value!r}")
    absolute, relative = (
        non_negative("absolute_margin", absolute_margin),
        non_negative("relative_margin", relative_margin),
    )
    x = F.normalize(check_embeddings(embeddings.detach(), "embeddings").double())
    y = check_labels(labels, x, "labels")
    if not x.isfinite().all():
        raise InputError("embeddings have NaN or infinity, so nothing is near or far")
    far, distance = _farthest(x, y, positives)
    least = (relative * distance).clamp_min(absolute)
    near = _nearest(x, y, negatives, least, _search(x, backend))
    both = (far[:, 0] >= 0) & (near[:, 0] >= 0)
    return Hardest(both.nonzero()[:, 0], far[both], near[both])


def _farthest(x: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(n, count) the farthest of each one's class, −1 where there are fewer, and (n,) the distance of the farthest."""
    found = labels.new_full((len(x), count), -1)
    distance = x.new_zeros(len(x))
    order = labels.argsort(stable=True)
    for members in torch.split(order, torch.unique(labels, return_counts=True)[1].tolist()):
        k = min(count, len(members) - 1)
        for rows in torch.split(members, max(1, _CHUNK // max(1, len(members)))) if k else ():
            d = (2 - 2 * x[rows] @ x[members].T).clamp_min_(0).sqrt_()
            d[rows[:, None] == members] = -1
            values, places = d.sort(dim=1, descending=True, stable=True)
            found[rows, :k] = members[places[:, :k]]
            distance[rows] = values[:, 0]
    return found, distance


def _nearest(x: Tensor, labels: Tensor, count: int, least: Tensor, search: _Search) -> Tensor:
    """(n, count) the nearest of other classes that are at least so far, −1 where there are fewer."""
    found = labels.new_full((len(x), count), -1)
    waiting, k = torch.arange(len(x), device=x.device), min(len(x), 2 * count + 32)
    while len(waiting):
        short = []
        for rows in torch.split(waiting, max(1, _CHUNK // (k * max(1, x.shape[1])))):
            places = search(x[rows], k).sort(dim=1).values
            # Measured again, so that whatever searched decides nothing but who is looked at.
            d = (2 - 2 * torch.einsum("rd,rkd->rk", x[rows], x[places])).clamp_min_(0).sqrt_()
            wrong = (labels[places] == labels[rows, None]) | (d < least[rows, None])
            d, order = d.masked_fill_(wrong, torch.inf).sort(dim=1, stable=True)
            width = min(count, k)
            chosen = torch.where(d.isfinite(), places.gather(1, order), -1)[:, :width]
            found[rows, :width] = chosen
            short.append(rows[chosen[:, -1] < 0] if k < len(x) else rows[:0])
        waiting, k = torch.cat(short), min(len(x), 2 * k)
    return found


def _search(x: Tensor, backend: str) -> _Search:
    if backend not in ("auto", "faiss", "torch"):
        raise ArgumentError(f"backend must be 'auto', 'faiss' or 'torch'; got {backend!r}")
    installed = importlib.util.find_spec("faiss") is not None
    if backend == "faiss" and not installed:
        raise ArgumentError("faiss is not installed: pip install nearfar[search], or take backend='torch'")
    if backend == "torch" or not installed or (backend == "auto" and x.device.type != "cpu"):
        return lambda query, k: nearest(query, x, k, metric="cosine")[1]
    import faiss

    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x.cpu().float().numpy())
    return lambda query, k: torch.from_numpy(index.search(query.cpu().float().numpy(), k)[1]).to(x.device)
