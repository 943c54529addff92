"""An index over embeddings, kept on disk: searches of large galleries that do not look at every item."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import ConfigError, DataError, InputError, MissingExtra
from nearfar.files import replaced
from nearfar.inference.store import Embeddings

#: Neighbours of a node of the graph, and nodes looked at while it is built: faiss's own advice for high recall.
_LINKS, _BUILD = 32, 200
#: Bytes of a file within which its last line begins.
_LINE = 4096
#: Nodes looked at for a query, at least.
_SEARCH = 128


class Index:
    """A graph of near neighbours (HNSW) over a gallery, by faiss, searched by cosine.

    A search looks at some hundred items however many there are, and may miss a neighbour; the similarities it gives are
    exact.

    Parameters
    ----------
    path : path
        Of the index, as faiss reads it; where it ends, a line of JSON says of which embeddings it is. Where there is
        none, it is made of the gallery and written, at once or not at all.
    gallery : Embeddings
        What is searched.

    Raises
    ------
    ConfigError
        The index is of other embeddings.
    DataError
        It cannot be read or written.
    MissingExtra
        faiss is missing.

    References
    ----------
    Malkov, Yashunin (2018). Efficient and Robust Approximate Nearest Neighbor Search Using Hierarchical Navigable Small
    World Graphs. arXiv:1603.09320.
    """

    def __init__(self, path: str | os.PathLike[str], gallery: Embeddings) -> None:
        self._faiss = _faiss()
        self.size = len(gallery)
        path = Path(path)
        wanted = {"items": len(gallery), "size": gallery.vectors.shape[1], "vectors": _digest(gallery.vectors)}
        if path.exists():
            self._index = self._read(path, wanted)
        else:
            self._index = self._built(gallery.vectors)
            self._write(path, wanted)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The items nearest to each query, nearest first.

        Parameters
        ----------
        queries : Tensor
            (n, d)
        k : int
            [1..items]

        Returns
        -------
        similarities, indices : Tensor
            (n, k) float32 cosines and int64 positions in the gallery; −1 where fewer than k were found.

        Raises
        ------
        InputError
            ``k`` is out of range.
        """
        if not 1 <= k <= self.size:
            raise InputError(f"k is {k!r}, but must be an integer from 1 to {self.size}, the gallery's size")
        self._index.hnsw.efSearch = max(_SEARCH, 2 * k)
        similarities, indices = self._index.search(F.normalize(queries.float(), dim=1).cpu().numpy(), k)
        return torch.from_numpy(similarities), torch.from_numpy(indices)

    def _built(self, vectors: Tensor) -> Any:
        index = self._faiss.IndexHNSWFlat(vectors.shape[1], _LINKS, self._faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD
        index.add(F.normalize(vectors.float(), dim=1).cpu().numpy())
        return index

    def _write(self, path: Path, wanted: dict[str, Any]) -> None:
        try:
            with replaced(path) as file:
                file.write(self._faiss.serialize_index(self._index).tobytes())
                # In one file: of two, another process may write one in between.
                file.write(b"\n" + json.dumps(wanted).encode())
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from error

    def _read(self, path: Path, wanted: dict[str, Any]) -> Any:
        try:
            if _told(path) != wanted:
                raise ConfigError(f"{path} is an index of other embeddings: remove it, or give another name")
            index = self._faiss.read_index(str(path))
            if index.ntotal != wanted["items"] or index.d != wanted["size"]:
                raise ValueError(f"it has {index.ntotal} items of {index.d} numbers")
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, ConfigError):
                raise
            found = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{path} is no index that nearfar wrote ({found}): remove it, or give another name"
            ) from error
        return index


def _told(path: Path) -> dict[str, Any]:
    """What the last line of a file says."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LINE))
        found = json.loads(file.read().rpartition(b"\n")[2])
    if not isinstance(found, dict):
        raise ValueError("it does not say of which embeddings it is")
    return found


def _digest(vectors: Tensor) -> str:
    return hashlib.sha256(vectors.float().contiguous().numpy().tobytes()).hexdigest()[:16]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("an index", extra="search") from error
    return faiss
