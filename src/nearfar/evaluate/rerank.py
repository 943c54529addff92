"""What is done to a ranking after the network: queries expanded by what they find, neighbourhoods compared."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import InputError, MissingExtra
from nearfar.evaluate.topk import check_embeddings, check_fit, nearest

#: Pairs of embeddings that are subtracted at once.
_PAIRS = 2**14
#: Instead of the largest distance where all are 0.
_TINY = torch.finfo(torch.float32).tiny


def expand_queries(query: Tensor, gallery: Tensor, *, k: int = 10, alpha: float = 0.0) -> Tensor:
    r"""Each query, replaced by the sum of itself and the k items it finds first.

    .. math:: q' \propto q + \sum_{i \le k} \max(0, \cos(q, g_i))^\alpha \, g_i

    of embeddings of length one. With α = 0 it is average query expansion; α of about 3 trusts near items more.
    Given the gallery as both, it augments the database.

    Parameters
    ----------
    query, gallery : Tensor
        (n, d) and (m, d), finite.
    k : int
        [1..m] Items.
    alpha : float
        [0..inf]

    Returns
    -------
    Tensor
        (n, d), of length one.

    Raises
    ------
    InputError
        A shape or range does not fit.

    References
    ----------
    Chum, Philbin, Sivic, Isard, Zisserman (2007). Total Recall. ICCV. Radenović, Tolias, Chum (2019). Fine-tuning
    CNN Image Retrieval with No Human Annotation. arXiv:1711.02512 (α).
    """
    if not alpha >= 0:
        raise InputError(f"alpha must be at least 0; got {alpha}")
    similarities, found = nearest(query, gallery, k)
    weights = similarities.clamp_min(0) ** alpha
    items = F.normalize(gallery.detach().to(similarities.dtype), dim=1)
    own = F.normalize(query.detach().to(similarities.dtype), dim=1)
    for place in range(k):  # not one tensor of n × k × d
        own = own + weights[:, place, None] * items[found[:, place]]
    return F.normalize(own, dim=1)


def k_reciprocal(query: Tensor, gallery: Tensor, *, k1: int = 20, k2: int = 6, weight: float = 0.3) -> Tensor:
    r"""Distances of queries to a gallery that look at whom each has for neighbours.

    Of queries and gallery together, :math:`R(p, k_1)` are the neighbours that have :math:`p` among their own
    :math:`k_1`. It grows by :math:`R(q, k_1/2)` of each of its :math:`q` of which two thirds are in it already.
    :math:`V_p` gives each member the weight :math:`e^{-d(p, q)}`, scaled to a sum of one, and is then averaged over
    the :math:`k_2` nearest of :math:`p`. The result is

    .. math::

        (1 - \lambda) \left( 1 - \frac{\sum \min(V_p, V_g)}{\sum \max(V_p, V_g)} \right) + \lambda \, d(p, g)

    with :math:`d` the squared euclidean distance of embeddings of length one, over the largest of each row.

    Parameters
    ----------
    query, gallery : Tensor
        (n, d) and (m, d), finite.
    k1, k2 : int
        [1..n+m] Neighbours; 20 and 6 as in the paper.
    weight : float
        [0..1] λ; 0.3 as in the paper.

    Returns
    -------
    Tensor
        (n, m) float32 distances on the CPU, the smaller the nearer.

    Raises
    ------
    InputError
        A shape or range does not fit.
    MissingExtra
        scipy is missing.

    References
    ----------
    Zhong, Zheng, Cao, Li (2017). Re-ranking Person Re-identification with k-reciprocal Encoding. arXiv:1701.08398.
    """
    try:
        from scipy import sparse
    except ImportError as error:
        raise MissingExtra("k-reciprocal re-ranking", extra="evaluate") from error
    check_embeddings("query", query)
    check_embeddings("gallery", gallery)
    check_fit(query, gallery)
    if not 0 <= weight <= 1:
        raise InputError(f"weight must lie in [0, 1]; got {weight}")
    n, x = len(query), F.normalize(torch.cat([query, gallery]).detach().float().cpu(), dim=1)
    for name, k in (("k1", k1), ("k2", k2)):
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(x):
            raise InputError(f"{name} is {k!r}, but must be an integer from 1 to {len(x)}")
    # Each is its own first neighbour, also where others are equal to it.
    _, others = nearest(x, x, min(max(k1, k2 - 1), len(x) - 1), exclude_self=True)
    near = torch.cat([torch.arange(len(x))[:, None], others], 1)
    rows, columns = [], []
    reciprocal, half = _reciprocal(near, k1), [{*them} for them in _reciprocal(near, round(k1 / 2))]
    for p, own in enumerate(reciprocal):
        grown = {*own}
        for q in own:
            if 3 * len(half[q].intersection(own)) > 2 * len(half[q]):
                grown.update(half[q])
        rows.extend([p] * len(grown))
        columns.extend(sorted(grown))
    row, column = torch.tensor(rows), torch.tensor(columns)
    farthest = torch.cat([_squared(part, x).amax(1) for part in torch.split(x, 256)]).clamp_min(_TINY)
    pairs = zip(torch.split(row, _PAIRS), torch.split(column, _PAIRS), strict=True)
    between = torch.cat([(x[one] - x[other]).square().sum(1) for one, other in pairs]) / farthest[row]
    weights = torch.exp(-between).double()
    weights /= torch.zeros(len(x), dtype=torch.float64).index_add_(0, row, weights)[row]
    V = sparse.csr_array((weights.numpy(), (row.numpy(), column.numpy())), shape=(len(x),) * 2)
    if k2 > 1:
        taken = near[:, :k2].flatten().numpy()
        who = torch.arange(len(x)).repeat_interleave(k2).numpy()
        V = sparse.csr_array(([1 / k2] * len(taken), (who, taken)), shape=(len(x),) * 2) @ V
    by_member = V[n:].tocsc()
    result = torch.empty(n, len(gallery))
    for p in range(n):
        shared = torch.zeros(len(gallery), dtype=torch.float64)
        for place in range(V.indptr[p], V.indptr[p + 1]):
            start, stop = by_member.indptr[V.indices[place]], by_member.indptr[V.indices[place] + 1]
            holders = torch.from_numpy(by_member.indices[start:stop]).long()
            shared[holders] += torch.from_numpy(by_member.data[start:stop]).clamp_max(float(V.data[place]))
        jaccard = 1 - shared / (2 - shared)  # both sum to one
        result[p] = (1 - weight) * jaccard + weight * _squared(x[p : p + 1], x[n:])[0] / farthest[p]
    return result


def _reciprocal(near: Tensor, k: int) -> list[list[int]]:
    """Of each embedding, those of its k nearest, and itself, that have it among theirs; ``near`` (n, > k)."""
    forward = near[:, : k + 1]
    found = []
    for start in range(0, len(forward), 1024):
        part = forward[start : start + 1024]
        own = torch.arange(start, start + len(part))
        mutual = (forward[part] == own[:, None, None]).any(2)
        found += [them[kept].tolist() for them, kept in zip(part, mutual, strict=True)]
    return found


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of rows of length one, (n, m)."""
    return (2 - 2 * a @ b.T).clamp_min(0)
