"""The same exhaustive search, done by faiss."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import InputError, MissingExtra
from nearfar.evaluate.topk import Gallery, Metric

#: Similarities in a block of faiss's.
_BLOCK = 2**22


class FlatGallery(Gallery):
    """A gallery whose neighbours faiss finds, on the CPU, looking at every item as torch does.

    Cosines and products, in float32. Equal similarities stand by rising index, but which of those that are equal to the
    last one are among the k, faiss decides.

    Parameters
    ----------
    items : Tensor, shape (items, dim)
    metric : {"cosine", "dot"}
    chunk : int, optional
        As in :func:`~nearfar.evaluate.nearest`; 2**22 at least, which faiss holds whatever is asked of it.

    Raises
    ------
    InputError
        The metric is euclidean, which faiss forms in float32, where small distances are lost.
    MissingExtra
        faiss is missing.
    """

    def __init__(self, items: Tensor, *, metric: Metric = "cosine", chunk: int | None = None) -> None:
        super().__init__(items, metric=metric, chunk=max(chunk or 0, _BLOCK))
        if self._bias is not None:
            raise InputError(
                f"metric is {metric!r}, and faiss computes distances in float32, where small ones are lost: leave "
                "engine out, or ask for cosine or dot"
            )
        try:
            import faiss
        except ImportError as error:
            raise MissingExtra("a search by faiss", extra="search") from error
        self._flat = faiss.IndexFlatIP(items.shape[1])
        self._flat.add(self._items.float().cpu().contiguous().numpy())

    def rows(self, k: int) -> int:
        """How many queries to search at once for `k` neighbours each."""
        return max(1, self.chunk // (8 * k))

    def _search(self, query: Tensor, k: int, self_index: Tensor | None) -> tuple[Tensor, Tensor]:
        # One more, as each may find itself.
        asked = min(k + (self_index is not None), self.size)
        found = self._flat.search(query.float().cpu().contiguous().numpy(), asked)
        values, indices = (torch.from_numpy(part).to(query.device) for part in found)
        if self_index is not None:
            values = values.masked_fill(indices == self_index[:, None], torch.finfo(values.dtype).min)
        indices, order = indices.sort(dim=1)
        values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
        return values[:, :k], indices.gather(1, order)[:, :k]
