"""Exact nearest neighbours, block by block, so that the whole similarity matrix never exists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from nearfar.errors import InputError

Metric = Literal["cosine", "dot", "euclidean", "squared_euclidean"]
Engine = Literal["torch", "faiss"]
#: What searches.
ENGINES = get_args(Engine)

# Similarities held at once: 4 MB of float32 make a product that runs at full speed and stay near the cache; a GPU wants
# larger ones.
_CPU_CHUNK: Final = 2**20
_GPU_CHUNK: Final = 2**25
# Fewer query rows than this make the product read the gallery more often than it computes with it.
_ROWS: Final = 64


def nearest(
    query: Tensor,
    gallery: Tensor,
    k: int,
    *,
    metric: Metric = "cosine",
    exclude_self: bool | Tensor = False,
    chunk: int | None = None,
    engine: Engine = "torch",
) -> tuple[Tensor, Tensor]:
    """The `k` nearest gallery items of every query, nearest first.

    The search is exhaustive. Products are formed in float32, or float64 if an input is float64, at full precision
    whatever autocast or TF32 settings surround the call. The two euclidean metrics form them in float64 (except on
    MPS, which has none) after moving the gallery's mean to the origin, because ``|q|² − 2qg + |g|²`` in float32
    loses small distances to cancellation.

    Ties: of gallery items whose computed similarity is equal, the one with the lower index is nearer.

    Parameters
    ----------
    query : Tensor, shape (queries, dim)
        Finite, floating point.
    gallery : Tensor, shape (items, dim)
        Finite, floating point, on the same device.
    k : int
        From 1 to the number of items that a query may retrieve; more is an error, not clamped.
    metric : {"cosine", "dot", "euclidean", "squared_euclidean"}
        ``cosine`` of a zero vector with anything is 0.
    exclude_self : bool or Tensor of shape (queries,), default False
        True: query ``i`` is gallery item ``i`` and does not retrieve it. A tensor of integers: query ``i`` is gallery
        item ``exclude_self[i]``; −1 marks a query that is not in the gallery.
    chunk : int, optional
        The number of similarities held at once; 2**20 on the CPU (4 MB), 2**25 elsewhere. It bounds the memory and
        does not change the result, except that a product's last bit may depend on its shape.
    engine : {"torch", "faiss"}
        What searches. faiss, of ``nearfar[search]``, does so on the CPU, by cosine or dot and in float32, and finds the
        same up to rounding and to which of equal items are the last of the k.

    Returns
    -------
    values : Tensor, shape (queries, k)
        Similarities (``cosine``, ``dot``), falling, or distances, rising; float32, or float64 if an input is. A
        distance is right to about 1e-8 times the spread of the embeddings: that of a duplicate may not be exactly 0.
    indices : Tensor of int64, shape (queries, k)
        Positions in the gallery.

    Raises
    ------
    InputError
        Wrong shape, dtype or device, NaN or infinity, `k` out of range, similarities that overflow, or a metric that
        the engine does not have.
    MissingExtra
        faiss is missing, and asked for.
    """
    check_embeddings("query", query)
    check_embeddings("gallery", gallery)
    check_fit(query, gallery)
    index = searchable(gallery, query, metric=metric, chunk=chunk, engine=engine)
    self_index = self_positions(exclude_self, query, gallery)
    available = len(gallery) - (self_index is not None)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= available:
        without = " without the query itself" if self_index is not None else ""
        raise InputError(f"k is {k!r}, but must be an integer from 1 to {available}, the gallery's size{without}")
    values = query.new_empty(len(query), k, dtype=index.dtype)
    indices = torch.empty(len(query), k, dtype=torch.int64, device=query.device)
    rows = index.rows(k)
    for start in range(0, len(query), rows):
        tile = slice(start, start + rows)
        values[tile], indices[tile] = index.search(query[tile], k, None if self_index is None else self_index[tile])
    return values, indices


class Gallery:
    """Embeddings prepared for being searched; :func:`nearest` and the metrics run on it.

    Parameters
    ----------
    items : Tensor, shape (items, dim)
    metric : str
        As in :func:`nearest`.
    chunk : int, optional
        As in :func:`nearest`.
    """

    def __init__(self, items: Tensor, *, metric: Metric = "cosine", chunk: int | None = None) -> None:
        if metric not in get_args(Metric):
            raise InputError(f"metric is {metric!r}, but must be one of {', '.join(get_args(Metric))}")
        if chunk is None:
            chunk = _CPU_CHUNK if items.device.type == "cpu" else _GPU_CHUNK
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise InputError(f"chunk is {chunk!r}, but must be a positive number of similarities")
        self.metric = metric
        self.chunk = chunk
        self.size = len(items)
        self.dtype = torch.promote_types(items.dtype, torch.float32)
        euclidean = metric in ("euclidean", "squared_euclidean")
        self._inner_dtype = torch.float64 if euclidean and items.device.type != "mps" else self.dtype
        items = items.detach().to(self._inner_dtype)
        self._origin = items.mean(0) if euclidean else None
        self._items = self._prepare(items)
        # d² = |q|² − 2(q·g − |g|²/2): the bracket orders the gallery as −d does, and needs one product.
        self._bias = self._items.square().sum(1).div_(-2) if euclidean else None

    def rows(self, k: int) -> int:
        """How many queries to search at once for `k` neighbours each, so that `chunk` bounds the memory."""
        # The lists of neighbours, their indices and what is computed from them count as well: 8k numbers a query.
        return max(1, self.chunk // max(self._columns(k), 8 * k))

    def search(self, query: Tensor, k: int, self_index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The `k` nearest of a tile of at most ``rows(k)`` checked queries; returns as :func:`nearest` does.

        Parameters
        ----------
        query : Tensor, shape (rows, dim)
        k : int
        self_index : Tensor of int64, shape (rows,), optional
            The gallery item each query is, or −1.
        """
        with torch.no_grad(), _full_precision(query.device):
            prepared = self._prepare(query)
            values, indices = self._search(prepared, k, self_index)
            if not torch.isfinite(values).all():
                raise InputError(f"the embeddings are too large: their {self.metric} overflows {self.dtype}")
            if self._bias is not None:
                # Rounding may leave a tiny negative number between duplicates.
                values = (prepared.square().sum(1, keepdim=True) - 2 * values).clamp_(min=0)
                if self.metric == "euclidean":
                    values = values.sqrt_()
            return values.to(self.dtype), indices

    def similarities(self, query: Tensor) -> Tensor:
        """The similarity of each of some queries to every item, (rows, items): cosines or products only."""
        assert self._bias is None
        with torch.no_grad(), _full_precision(query.device):
            return self._scores(self._prepare(query), 0, self.size)

    def _search(self, query: Tensor, k: int, self_index: Tensor | None) -> tuple[Tensor, Tensor]:
        columns = self._columns(k)
        best: tuple[Tensor, Tensor] | None = None
        for start in range(0, self.size, columns):
            scores = self._scores(query, start, min(start + columns, self.size))
            if self_index is not None:
                here = ((self_index >= start) & (self_index < start + columns)).nonzero().squeeze(1)
                # Below everything, and yet a neighbour where all others are taken.
                scores[here, self_index[here] - start] = torch.finfo(scores.dtype).min
            values, indices = _top(scores, min(k, scores.shape[1]))
            indices += start
            if best is not None:
                # The earlier blocks stand first, so that a stable sort keeps the lower index of a tie.
                values, order = torch.cat([best[0], values], 1).sort(dim=1, descending=True, stable=True)
                values = values[:, :k]
                indices = torch.cat([best[1], indices], 1).gather(1, order[:, :k])
            best = values, indices
        assert best is not None  # a gallery is never empty
        return best

    def _scores(self, query: Tensor, start: int, stop: int) -> Tensor:
        """Similarities, the larger the nearer, of the queries to the items from `start` to `stop`."""
        items = self._items[start:stop].T
        return query @ items if self._bias is None else torch.addmm(self._bias[start:stop], query, items)

    def _prepare(self, embeddings: Tensor) -> Tensor:
        x = embeddings.detach().to(self._inner_dtype)
        if self._origin is not None:
            return x - self._origin
        if self.metric == "cosine":
            # Scaled first, or the squares of very large or very small embeddings leave the range of the dtype.
            tiny = torch.finfo(x.dtype).tiny
            x = x / x.abs().amax(1, keepdim=True).clamp_(min=tiny)
            return x.div_(torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_(min=tiny))
        return x

    def _columns(self, k: int) -> int:
        # Blocks far narrower than 4k would spend their time merging lists of k.
        return min(max(self.chunk // _ROWS, 4 * k), self.size)


def searchable(gallery: Tensor, query: Tensor, *, metric: Metric, chunk: int | None, engine: Engine) -> Gallery:
    """The gallery for such queries, as the engine searches it; arguments as in :func:`nearest`."""
    if engine not in ENGINES:
        raise InputError(f"engine is {engine!r}, but must be one of {', '.join(ENGINES)}")
    items = gallery.to(torch.promote_types(query.dtype, gallery.dtype))
    if engine == "torch":
        return Gallery(items, metric=metric, chunk=chunk)
    from nearfar.evaluate.flat import FlatGallery  # it builds on what is here

    return FlatGallery(items, metric=metric, chunk=chunk)


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of every row, largest first, equal ones by rising column; `scores` is (rows, columns)."""
    if 4 * k >= scores.shape[1]:
        # Of so many, sorting all is no slower than choosing and then sorting.
        values, indices = scores.sort(dim=1, descending=True, stable=True)
        return values[:, :k], indices[:, :k]
    # One more than asked: torch.topk breaks ties as it likes, and the extra one shows whether it had a choice.
    values, indices = scores.topk(k + 1, dim=1)
    equal = values[:, 1:] == values[:, :-1]
    values, indices = values[:, :k], indices[:, :k]
    if not equal.any():
        return values, indices
    open_rows = equal[:, -1].nonzero().squeeze(1)
    if len(open_rows):
        indices = indices.clone()
        indices[open_rows] = _first_of_equals(scores[open_rows], values[open_rows, -1:], k)
    indices = indices.sort(dim=1).values
    values, order = scores.gather(1, indices).sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)


def _first_of_equals(scores: Tensor, smallest: Tensor, k: int) -> Tensor:
    """Columns of the top `k` whose least value is `smallest`, taking the first of those that equal it."""
    above = scores > smallest
    equal = scores == smallest
    needed = k - above.sum(1, keepdim=True)
    keep = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= needed))
    return keep.nonzero()[:, 1].view(-1, k)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keep TF32, reduced-precision products and autocast out: they reorder close neighbours."""
    # torch sets mkldnn.matmul when it is imported, out of sight of its own type hints.
    cpu = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    backend = {"cuda": torch.backends.cuda.matmul, "cpu": cpu}.get(device.type)
    with torch.autocast(device.type, enabled=False):
        if backend is None:
            yield
            return
        before = backend.fp32_precision
        backend.fp32_precision = "ieee"
        try:
            yield
        finally:
            backend.fp32_precision = before


def check_embeddings(name: str, embeddings: Tensor) -> None:
    """Raise an InputError unless `embeddings` is a finite floating-point matrix with rows and columns."""
    if not isinstance(embeddings, Tensor):
        raise InputError(f"{name} must be a torch.Tensor of shape (items, dim), not {type(embeddings).__name__}")
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise InputError(f"{name} must have shape (items, dim), neither of them 0, not {tuple(embeddings.shape)}")
    if not embeddings.is_floating_point():
        raise InputError(f"{name} must be floating point, not {embeddings.dtype}")
    finite = torch.isfinite(embeddings).all(1)
    if not finite.all():
        wrong = (~finite).nonzero().squeeze(1)
        raise InputError(f"{name} has NaN or infinity in {len(wrong)} of {len(finite)} rows, first in row {wrong[0]}")


def check_fit(query: Tensor, gallery: Tensor) -> None:
    """Raise an InputError unless queries and gallery have the same dimension and device."""
    if query.shape[1] != gallery.shape[1]:
        raise InputError(f"the queries have {query.shape[1]} dimensions and the gallery has {gallery.shape[1]}")
    if query.device != gallery.device:
        raise InputError(f"the queries are on {query.device} and the gallery is on {gallery.device}")


def self_positions(exclude_self: bool | Tensor, query: Tensor, gallery: Tensor) -> Tensor | None:
    """Turn `exclude_self` of :func:`nearest` into int64 positions of shape (queries,), or None."""
    if isinstance(exclude_self, bool):
        if not exclude_self:
            return None
        if len(query) != len(gallery):
            raise InputError(
                f"exclude_self=True says that query i is gallery item i, but there are {len(query)} queries "
                f"and {len(gallery)} gallery items: pass each query's position in the gallery instead"
            )
        return torch.arange(len(query), device=query.device)
    check_integers("exclude_self", exclude_self, len(query))
    positions = exclude_self.to(query.device, torch.int64)
    if positions.min() < -1 or positions.max() >= len(gallery):
        raise InputError(
            f"exclude_self must lie from -1 to {len(gallery) - 1}, the last gallery item, "
            f"not from {int(positions.min())} to {int(positions.max())}"
        )
    return positions


def check_integers(name: str, values: Tensor, length: int) -> None:
    """Raise an InputError unless `values` is a tensor of `length` integers."""
    if not isinstance(values, Tensor):
        raise InputError(f"{name} must be a torch.Tensor of {length} integers, not {type(values).__name__}")
    if values.shape != (length,):
        raise InputError(f"{name} must have shape ({length},), one for every embedding, not {tuple(values.shape)}")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise InputError(f"{name} must be integers, not {values.dtype}")
