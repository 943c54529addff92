"""Embeddings on disk: one row an image, Parquet or safetensors, with what they depend on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from torch import Tensor

from nearfar.errors import DataError, MissingExtra
from nearfar.files import replaced

#: The endings of files that embeddings are kept in.
STORES = (".parquet", ".safetensors")

_KEY = "nearfar.embeddings"


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Embeddings of images.

    Attributes
    ----------
    vectors : Tensor
        (n, d) float32.
    paths : tuple of str
        Of the images.
    about : dict
        What the vectors depend on: the model, mirror images.
    """

    vectors: Tensor
    paths: tuple[str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def folders(self) -> tuple[str, ...]:
        """The name of the folder of each image: its class, where images are kept so."""
        return tuple(Path(path).parent.name for path in self.paths)

    def scattered(self) -> tuple[str, ...]:
        """Names of folders that images of several places have: one class in two splits, or two classes by chance."""
        places: dict[str, set[Path]] = {}
        for path in self.paths:
            places.setdefault(Path(path).parent.name, set()).add(Path(path).parent)
        return tuple(name for name, folders in places.items() if len(folders) > 1)


def check_store(path: str | os.PathLike[str]) -> Path:
    """The path of a file that embeddings can be kept in.

    Raises
    ------
    DataError
        Its ending is none of them.
    MissingExtra
        It is Parquet, and pyarrow is missing.
    """
    path = Path(path)
    if path.suffix not in STORES:
        raise DataError(f"embeddings are kept in a file ending in {' or '.join(STORES)}, and {path} does not")
    if path.suffix == ".parquet":
        _pyarrow()
    return path


def write_embeddings(found: Embeddings, path: str | os.PathLike[str]) -> None:
    """Write embeddings, at once or not at all: ``….safetensors``, or ``….parquet`` with columns path and embedding.

    Raises
    ------
    DataError
        The ending is none of these, or the file cannot be written.
    MissingExtra
        pyarrow is missing.
    """
    write_parts([found.vectors], found.paths, found.about, path)


def write_parts(
    parts: Iterable[Tensor], paths: Sequence[str], about: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """As :func:`write_embeddings`, of vectors that come in parts, one of which is in memory at a time.

    Parameters
    ----------
    parts : iterable of Tensor
        (·, d) each, one at least, together a row a path.
    paths : sequence of str
        Of the images.
    about : mapping
        As of :class:`Embeddings`.
    path : path
        Of the file.

    Raises
    ------
    DataError
        The ending is none of these, or the file cannot be written.
    MissingExtra
        pyarrow is missing.
    """
    path = check_store(path)
    write = _write_parquet if path.suffix == ".parquet" else _write_safetensors
    try:
        with replaced(path) as file:
            write(parts, paths, {_KEY: json.dumps(dict(about))}, file)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def read_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """Read what :func:`write_embeddings` wrote, or any Parquet with the columns ``path`` and ``embedding``.

    Raises
    ------
    DataError
        The file is missing, damaged or of another origin.
    MissingExtra
        pyarrow is missing.
    """
    path = check_store(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    found = _read_parquet(path) if path.suffix == ".parquet" else _read_safetensors(path)
    if found.vectors.ndim != 2 or len(found.vectors) != len(found.paths) or not found.vectors.isfinite().all():
        raise DataError(f"{path} holds no embeddings that can be used: {tuple(found.vectors.shape)}")
    return found


def _read_safetensors(path: Path) -> Embeddings:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            paths = json.loads(file.get_tensor("paths").numpy().tobytes())
            return Embeddings(file.get_tensor("embeddings").float(), tuple(paths), about)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} holds no embeddings that nearfar wrote: {error}") from error


def _write_safetensors(
    parts: Iterable[Tensor], paths: Sequence[str], about: Mapping[str, str], file: IO[bytes]
) -> None:
    """A header that says where tensors lie, then their bytes; the library's own writer wants all of them at once."""
    # The paths as a tensor, because a header may have 100 MB, which those of a million images have.
    named = json.dumps(list(paths)).encode()
    vectors = iter(parts)
    part: Tensor | None = next(vectors)
    assert part is not None
    size = 4 * len(paths) * part.shape[1]
    tensors = {
        "embeddings": {"dtype": "F32", "shape": [len(paths), part.shape[1]], "data_offsets": [0, size]},
        "paths": {"dtype": "U8", "shape": [len(named)], "data_offsets": [size, size + len(named)]},
    }
    header = json.dumps({"__metadata__": about, **tensors}).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    while part is not None:
        file.write(part.float().contiguous().numpy().astype("<f4", copy=False).tobytes())
        part = next(vectors, None)
    file.write(named)


def _write_parquet(parts: Iterable[Tensor], paths: Sequence[str], about: Mapping[str, str], file: IO[bytes]) -> None:
    pyarrow, parquet = _pyarrow()
    writer, start = None, 0
    try:
        for part in parts:
            flat = pyarrow.array(part.float().contiguous().flatten().numpy())
            columns = {
                "path": pyarrow.array(list(paths[start : start + len(part)]), pyarrow.string()),
                "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, part.shape[1]),
            }
            table = pyarrow.table(columns).replace_schema_metadata(about)
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
            start += len(part)
    finally:
        if writer is not None:
            writer.close()


def _read_parquet(path: Path) -> Embeddings:
    pyarrow, parquet = _pyarrow()
    from pyarrow import compute

    try:
        table = parquet.read_table(path, columns=["path", "embedding"])
        about = json.loads((table.schema.metadata or {}).get(_KEY.encode(), b"{}"))
        column = table.column("embedding").combine_chunks()
        # Flattened, rows of unequal lengths would be cut into others.
        sizes = compute.unique(compute.list_value_length(column)).to_pylist()
        if len(sizes) > 1 or None in sizes:
            told = ", ".join(str(size or "no") for size in sizes[:3])
            raise ValueError(f"its rows have {told}{' …' if len(sizes) > 3 else ''} numbers, and all need as many")
        width = sizes[0] if sizes else 0
        vectors = torch.from_numpy(column.flatten().to_numpy(zero_copy_only=False).copy()).float()
        return Embeddings(vectors.reshape(len(table), width), tuple(table.column("path").to_pylist()), about)
    except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} holds no columns path and embedding: {said}") from error


def _pyarrow() -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("Parquet", extra="parquet") from error
    return pyarrow, parquet
