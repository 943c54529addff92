"""Verification sets as insightface keeps them: a pickle of 2n encoded images and n truth values, ``lfw.bin``.

A pickle is a program. This one is run by an interpreter that knows lists, numbers, bytes and the few names that numpy's
arrays are pickled with, each replaced by something that only holds data: no other name is looked up, and nothing is
allocated that the file does not hold.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.data.image import cut, decode
from nearfar.data.size import Size
from nearfar.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class FacePairs:
    """Pairs of images.

    Attributes
    ----------
    encoded : tuple of bytes
        2n images as JPEG or PNG; pair i is images 2i and 2i + 1.
    same : Tensor
        (n,) bool.
    name : str
        For messages.
    """

    encoded: tuple[bytes, ...]
    same: Tensor
    name: str = "pairs"

    def __len__(self) -> int:
        return len(self.same)

    def image(self, index: int, size: Size = 112) -> Tensor:
        """Decode image ``index`` of 2n: (3, height, width) uint8, RGB.

        Raises
        ------
        DataError
            It cannot be decoded.
        """
        return cut(decode(self.encoded[index], f"{self.name}, image {index}"), size)


def read_pairs(path: str | os.PathLike[str]) -> FacePairs:
    """Read a verification set, as insightface's ``lfw.bin``, ``cfp_fp.bin`` and ``agedb_30.bin`` are.

    Raises
    ------
    DataError
        The file cannot be read, holds anything but images and truth values, or their numbers do not fit.
    """
    path = Path(path)
    try:
        loaded = _Reader(path.read_bytes()).load()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except _Foreign as error:
        raise DataError(f"{path} is no verification set: {error}; it was not run") from error
    except Exception as error:  # a pickle that is broken fails in every way there is
        raise DataError(
            f"{path} is no verification set: it is damaged or not a pickle ({type(error).__name__})"
        ) from error
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:
        raise DataError(f"{path} is no verification set: it holds no pair of images and truth values")
    images, same = loaded
    if isinstance(same, _Array):
        same = [bool(value) for value in same.data]
    if not isinstance(images, (list, tuple)) or not isinstance(same, (list, tuple)):
        raise DataError(f"{path} is no verification set: images and truth values are to be lists")
    encoded = tuple(image.data if isinstance(image, _Array) else image for image in images)
    if wrong := [place for place, image in enumerate(encoded) if not isinstance(image, bytes)]:
        raise DataError(f"{path} is no verification set: image {wrong[0]} is no encoded image")
    if wrong := [place for place, value in enumerate(same) if value not in (True, False)]:
        raise DataError(f"{path} is no verification set: truth value {wrong[0]} is neither true nor false")
    if len(encoded) != 2 * len(same) or not same:
        raise DataError(f"{path} has {len(encoded)} images for {len(same)} pairs: there must be two a pair")
    return FacePairs(encoded, torch.tensor([bool(value) for value in same]), path.name)


def write_pairs(path: str | os.PathLike[str], encoded: Sequence[bytes], same: Sequence[bool]) -> None:
    """Write a verification set that :func:`read_pairs` and insightface read.

    Parameters
    ----------
    path : path
        Of the file; one that exists is not overwritten.
    encoded : sequence of bytes
        2n images as JPEG or PNG.
    same : sequence of bool
        n truth values.

    Raises
    ------
    DataError
        The numbers do not fit, or the file cannot be written.
    """
    if len(encoded) != 2 * len(same) or not len(same):
        raise DataError(f"there are {len(encoded)} images for {len(same)} pairs: give two a pair")
    try:
        with Path(path).open("xb") as file:
            pickle.dump(([bytes(image) for image in encoded], [bool(value) for value in same]), file, protocol=4)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


class _Foreign(Exception):
    """A name that a verification set has no use for."""


class _Array:
    """What an array of uint8 or bool holds, instead of the array."""

    data: bytes = b""

    def __setstate__(self, state: Any) -> None:
        data = state[4]
        if not isinstance(data, bytes):
            raise _Foreign("an array of something else than bytes is in it")
        self.data = data


class _Type:
    """An array's type, unread: what counts is that its items are bytes."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _array(*_: Any) -> _Array:
    return _Array()


# The interpreter in C makes room for a memo as large as the file says.
class _Reader(pickle._Unpickler):
    """Runs a pickle that builds lists of bytes and truth values."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        #: Bytes that may yet be made of texts and buffers: what stands in the file once cannot be multiplied.
        self._left = 2 * len(content)
        self._names: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): "ndarray",
            ("numpy", "dtype"): _Type,
            ("numpy.core.multiarray", "_reconstruct"): _array,
            ("numpy._core.multiarray", "_reconstruct"): _array,
            ("numpy.core.numeric", "_frombuffer"): self._from_buffer,
            ("numpy._core.numeric", "_frombuffer"): self._from_buffer,
            ("_codecs", "encode"): self._encoded,
            ("builtins", "bytes"): self._bytes,
            ("__builtin__", "bytes"): self._bytes,
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise _Foreign(f"it asks for {module}.{name}")
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Foreign("it refers to something outside")

    def _encoded(self, text: Any, encoding: Any = "latin1") -> bytes:
        """How old protocols write bytes."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
            raise _Foreign("a text is encoded in it in an unknown way")
        self._spend(len(text))
        return text.encode("latin1")

    def _from_buffer(self, data: Any, *_: Any) -> _Array:
        """How protocol 5 writes arrays."""
        if not isinstance(data, (bytes, bytearray)):
            raise _Foreign("an array of something else than bytes is in it")
        self._spend(len(data))
        array = _Array()
        array.data = bytes(data)
        return array

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _Foreign("it makes more bytes than it holds")

    def _bytes(self, *given: Any) -> bytes:
        if given:
            raise _Foreign("bytes are made in it of something else")
        return b""
