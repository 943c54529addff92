"""What is done to a ranking after the network: queries expanded by what they find, neighbourhoods compared."""

from __future__ import annotations

from array import array
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import InputError, MissingExtra
from nearfar.evaluate.topk import Engine, check_embeddings, check_fit, nearest

#: Pairs of embeddings that are subtracted at once, and distances of which the largest is sought at once.
_PAIRS, _DISTANCES = 2**14, 2**20
#: Instead of the largest distance where all are 0.
_TINY = torch.finfo(torch.float32).tiny


def expand_queries(
    query: Tensor, gallery: Tensor, *, k: int = 10, alpha: float = 0.0, engine: Engine = "torch"
) -> Tensor:
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
    engine : {"torch", "faiss"}
        What finds them, as in :func:`~nearfar.evaluate.nearest`.

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
    similarities, found = nearest(query, gallery, k, engine=engine)
    weights = similarities.clamp_min(0) ** alpha
    items = F.normalize(gallery.detach().to(similarities.dtype), dim=1)
    own = F.normalize(query.detach().to(similarities.dtype), dim=1)
    for place in range(k):  # not one tensor of n × k × d
        own = own + weights[:, place, None] * items[found[:, place]]
    return F.normalize(own, dim=1)


class KReciprocal:
    r"""Distances of queries to a gallery that look at whom each has for neighbours, some queries at a time.

    Of queries and gallery together, :math:`R(p, k_1)` are the neighbours that have :math:`p` among their own
    :math:`k_1`. It grows by :math:`R(q, k_1/2)` of each of its :math:`q` of which two thirds are in it already.
    :math:`V_p` gives each member the weight :math:`e^{-d(p, q)}`, scaled to a sum of one, and is then averaged over
    the :math:`k_2` nearest of :math:`p`. The distance is

    .. math::

        (1 - \lambda) \left( 1 - \frac{\sum \min(V_p, V_g)}{\sum \max(V_p, V_g)} \right) + \lambda \, d(p, g)

    with :math:`d` the squared euclidean distance of embeddings of length one, over the largest of each row.

    No matrix of N × N is made, N = n + m: of each embedding its neighbours and the members of :math:`V_p` are kept,
    some 5 kB with the paper's numbers, and :meth:`rows` gives the distances of as many queries as are asked for.

    Parameters
    ----------
    query, gallery : Tensor
        (n, d) and (m, d), finite.
    k1, k2 : int
        [1..n+m] Neighbours; 20 and 6 as in the paper.
    weight : float
        [0..1] λ; 0.3 as in the paper.
    engine : {"torch", "faiss"}
        What finds neighbours, as in :func:`~nearfar.evaluate.nearest`.

    Raises
    ------
    InputError
        A shape or range does not fit.
    MissingExtra
        scipy is missing, or faiss, and asked for.

    References
    ----------
    Zhong, Zheng, Cao, Li (2017). Re-ranking Person Re-identification with k-reciprocal Encoding. arXiv:1701.08398.
    """

    def __init__(
        self,
        query: Tensor,
        gallery: Tensor,
        *,
        k1: int = 20,
        k2: int = 6,
        weight: float = 0.3,
        engine: Engine = "torch",
    ) -> None:
        try:
            import scipy.sparse  # noqa: F401
        except ImportError as error:
            raise MissingExtra("k-reciprocal re-ranking", extra="evaluate") from error
        check_embeddings("query", query)
        check_embeddings("gallery", gallery)
        check_fit(query, gallery)
        if not 0 <= weight <= 1:
            raise InputError(f"weight must lie in [0, 1]; got {weight}")
        count = len(query) + len(gallery)
        for name, k in (("k1", k1), ("k2", k2)):
            if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= count:
                raise InputError(f"{name} is {k!r}, but must be an integer from 1 to {count}")
        self.shape, self._weight = (len(query), len(gallery)), weight
        self._x = F.normalize(torch.cat([query, gallery]).detach().float().cpu(), dim=1)
        # Each is its own first neighbour, also where others are equal to it.
        _, others = nearest(self._x, self._x, min(max(k1, k2 - 1), count - 1), exclude_self=True, engine=engine)
        near = torch.cat([torch.arange(count)[:, None], others], 1)
        rows = max(1, _DISTANCES // count)
        self._farthest = torch.cat([_squared(part, self._x).amax(1) for part in torch.split(self._x, rows)]).clamp_min(
            _TINY
        )
        self._V = self._weights(near, k1, k2)
        self._by_member = self._V[len(query) :].tocsc()

    def rows(self, start: int, stop: int) -> Tensor:
        """The distances of the queries from ``start`` to ``stop``, (rows, m) float32 on the CPU."""
        n, m = self.shape
        queries = range(n)[start:stop]
        result = torch.empty(len(queries), m)
        for row, p in enumerate(queries):
            shared = torch.zeros(m, dtype=torch.float64)
            for place in range(self._V.indptr[p], self._V.indptr[p + 1]):
                member = self._V.indices[place]
                own = slice(self._by_member.indptr[member], self._by_member.indptr[member + 1])
                holders = torch.from_numpy(self._by_member.indices[own]).long()
                shared[holders] += torch.from_numpy(self._by_member.data[own]).clamp_max(float(self._V.data[place]))
            jaccard = 1 - shared / (2 - shared)  # both sum to one
            away = _squared(self._x[p : p + 1], self._x[n:])[0] / self._farthest[p]
            result[row] = (1 - self._weight) * jaccard + self._weight * away
        return result

    def _weights(self, near: Tensor, k1: int, k2: int) -> Any:
        """The V_p, a sparse row each."""
        from scipy import sparse

        reciprocal, half = _reciprocal(near, k1), [{*them} for them in _reciprocal(near, round(k1 / 2))]
        # As numbers of eight bytes, a fifth of what Python's integers take in lists.
        members, counts = array("q"), array("q")
        for own in reciprocal:
            grown = {*own}
            for q in own:
                if 3 * len(half[q].intersection(own)) > 2 * len(half[q]):
                    grown.update(half[q])
            members.extend(sorted(grown))
            counts.append(len(grown))
        count, x = len(near), self._x
        column = torch.frombuffer(members, dtype=torch.int64)
        row = torch.arange(count).repeat_interleave(torch.frombuffer(counts, dtype=torch.int64))
        pairs = zip(torch.split(row, _PAIRS), torch.split(column, _PAIRS), strict=True)
        between = torch.cat([(x[one] - x[other]).square().sum(1) for one, other in pairs]) / self._farthest[row]
        weights = torch.exp(-between).double()
        weights /= torch.zeros(count, dtype=torch.float64).index_add_(0, row, weights)[row]
        V = sparse.csr_array((weights.numpy(), (row.numpy(), column.numpy())), shape=(count, count))
        if k2 == 1:
            return V
        who = torch.arange(count).repeat_interleave(k2).numpy()
        taken = near[:, :k2].flatten().numpy()
        return sparse.csr_array(([1 / k2] * len(taken), (who, taken)), shape=(count, count)) @ V


def k_reciprocal(
    query: Tensor, gallery: Tensor, *, k1: int = 20, k2: int = 6, weight: float = 0.3, engine: Engine = "torch"
) -> Tensor:
    """All distances of :class:`KReciprocal` at once, (n, m) float32 on the CPU, the smaller the nearer.

    Arguments and errors are as there. Where n × m numbers are too many, its ``rows`` has them in parts, and
    :func:`~nearfar.evaluate.ranking_metrics` takes that.
    """
    return KReciprocal(query, gallery, k1=k1, k2=k2, weight=weight, engine=engine).rows(0, len(query))


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
