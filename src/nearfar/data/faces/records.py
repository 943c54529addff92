"""Training sets as insightface keeps them: ``train.rec`` and ``train.idx``, read without mxnet.

A record is a magic number, a length and a payload, padded to four bytes; where the payload has the magic number in it,
it is cut there and joined when read. The payload begins with a header that has a label. Record 0 tells where the
identities' records begin, in float32: above 2^24 records such numbers are rounded, so nothing but the images' own
labels and the records themselves is believed here.
"""

from __future__ import annotations

import mmap
import os
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nearfar.data.image import cut, decode
from nearfar.data.size import Size
from nearfar.data.source import ImageSource
from nearfar.errors import DataError

_MAGIC = struct.pack("<I", 0xCED7230A)
_FRAME = struct.Struct("<4sI")
_HEADER = struct.Struct("<IfQQ")  # flag, label, id, second id
_LENGTH = 2**29 - 1
#: Images whose headers are gathered at once.
_AT_ONCE = 2**20


class RecordFaces(ImageSource):
    """The images of a record file, as an identity each.

    Parameters
    ----------
    path : path
        The file ``….rec``; ``….idx`` lies beside it.
    image_size : int or (height, width)
        Of the images given, in pixels.

    Attributes
    ----------
    path : Path
        The file.
    keys : Tensor
        (n,) int64, the record of each image.
    labels, class_names
        As of every source; a class's name is its label in the file.

    Raises
    ------
    DataError
        A file is missing, truncated or contradicts itself.
    """

    reads_files = True

    def __init__(self, path: str | os.PathLike[str], *, image_size: Size = 112) -> None:
        self.path = Path(path)
        self.image_size = image_size
        self._bytes: np.ndarray[tuple[int], np.dtype[np.uint8]] | None = None
        keys, self._offsets = _read_index(self.path.with_suffix(".idx"))
        data = self._data()
        if len(keys) and int(self._offsets.max()) + _FRAME.size + _HEADER.size > len(data):
            raise DataError(f"{self.path} ends before the records that its index tells of: it is truncated")
        images = _images(data, keys, self._offsets, self.path)
        self._offsets = self._offsets[images]
        self.keys = torch.from_numpy(keys[images])
        original = torch.from_numpy(_labels(data, self._offsets, self.path))
        values, self.labels = torch.unique(original, return_inverse=True)
        self.class_names = tuple(map(str, values.tolist()))

    def encoded(self, index: int) -> bytes:
        """One image as it stands in the file, JPEG mostly."""
        payload = _payload(self._data(), int(self._offsets[index]), self.path)
        return payload[_content(payload, self.path) :]

    def image(self, index: int) -> Tensor:
        """Return one image, (3, height, width) uint8, RGB."""
        name = f"record {int(self.keys[index])} of {self.path}"
        return cut(decode(self.encoded(index), name), self.image_size)

    def check(self) -> None:
        """Decode every image once; raises a DataError that names the first that cannot be read."""
        for index in range(len(self)):
            self.image(index)

    def _data(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """The file, mapped into memory; anew in each process that loads images."""
        if self._bytes is None:
            try:
                with self.path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:  # an empty file cannot be mapped
                raise DataError(f"cannot read {self.path}: {error}") from error
            self._bytes = np.frombuffer(mapped, dtype=np.uint8)
        return self._bytes

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_bytes": None}


def write_records(path: str | os.PathLike[str], images: Iterable[tuple[bytes, int]], *, size: int = 112) -> None:
    """Write ``….rec``, ``….idx`` and ``property`` as insightface's are: images by identity, then the identities.

    Parameters
    ----------
    path : path
        The file ``….rec``; no file that exists is overwritten.
    images : iterable of (encoded, label)
        JPEG or PNG, and a class id of 0 or more; those of an identity one after the other.
    size : int
        The side of the images in pixels, for ``property``.

    Raises
    ------
    DataError
        An identity comes twice, there are more records than float32 can count (2^24), or a file cannot be written.
    """
    path = Path(path)
    index, ranges = path.with_suffix(".idx"), dict[int, list[int]]()
    try:
        # Record 0 tells what is known only at the end; it has its place and is written then.
        with path.open("xb") as records, index.open("x") as keys:
            keys.write("0\t0\n")
            records.write(_record(_HEADER.pack(2, 0.0, 0, 0) + struct.pack("<2f", 0, 0)))
            key, last = 1, None
            for encoded, label in images:
                if label != last and label in ranges:
                    raise DataError(f"the images of identity {label} do not follow each other: sort them by identity")
                ranges.setdefault(label, [key, key])[1] = key + 1
                keys.write(f"{key}\t{records.tell()}\n")
                records.write(_record(_HEADER.pack(0, float(label), key, 0) + bytes(encoded)))
                key, last = key + 1, label
            end = key + len(ranges)
            if end > 2**24:
                raise DataError(f"{end} records are more than this format's float32 can count, which is 2^24")
            for place, (first, beyond) in enumerate(ranges.values()):
                keys.write(f"{key + place}\t{records.tell()}\n")
                records.write(_record(_HEADER.pack(2, 0.0, key + place, 0) + struct.pack("<2f", first, beyond)))
            records.seek(0)
            records.write(_record(_HEADER.pack(2, 0.0, 0, 0) + struct.pack("<2f", key, end)))
        with path.with_name("property").open("x") as file:
            file.write(f"{len(ranges)},{size},{size}\n")
    except OSError as error:
        raise DataError(f"cannot write {error.filename or path}: {error.strerror or error}") from error


def _record(payload: bytes) -> bytes:
    """Frame a payload, cut where it has the magic number at a multiple of four."""
    if len(payload) > _LENGTH:
        raise DataError(f"an image of {len(payload)} bytes is larger than a record can be")
    cuts = [place for place in range(0, len(payload) - 3, 4) if payload[place : place + 4] == _MAGIC]
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(payload)]
    framed = b""
    for part, (start, end) in enumerate(zip(starts, ends, strict=True)):
        kind = 0 if not cuts else 1 if part == 0 else 3 if part == len(cuts) else 2
        framed += _FRAME.pack(_MAGIC, kind << 29 | (end - start)) + payload[start:end] + bytes(-(end - start) % 4)
    return framed


def _read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The keys and the offsets of an index, int64, by rising key."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file without lines, which is told below
            table = np.loadtxt(path, dtype=np.int64, delimiter="\t", ndmin=2)
    except OSError as error:
        raise DataError(f"cannot read {path}, which tells where the records are: {error}") from error
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path} is no index: its lines are to be a key, a tab and an offset ({error})") from error
    if table.ndim != 2 or table.shape[1] != 2 or not len(table) or table.min() < 0:
        raise DataError(f"{path} is no index: its lines are to be a key, a tab and an offset")
    table = table[table[:, 0].argsort(kind="stable")]
    if (table[1:, 0] == table[:-1, 0]).any():
        raise DataError(f"{path} has a key twice")
    return table[:, 0], table[:, 1]


def _images(data: np.ndarray, keys: np.ndarray, offsets: np.ndarray, path: Path) -> slice:
    """Which records are images: all but the first and the identities', or all of a file without identities."""
    payload = _payload(data, int(offsets[0]), path)
    flag = _HEADER.unpack_from(payload)[0]
    if keys[0] != 0 or flag != 2 or len(payload) > _content(payload, path):
        return slice(None)
    # Where the identities begin is told in float32. An identity's record has nothing behind its header.
    place = round(struct.unpack_from("<f", payload, _HEADER.size)[0]) if len(payload) >= _HEADER.size + 8 else -1
    if not 0 < place <= keys[-1] + 2**20:
        raise DataError(f"{path} tells in its first record that it has {place} records, and its index has {len(keys)}")
    first = int(np.searchsorted(keys, place))

    def is_image(position: int) -> bool:
        found = _payload(data, int(offsets[position]), path)
        return len(found) > _content(found, path)

    while first < len(keys) and is_image(first):
        first += 1
    while first > 1 and not is_image(first - 1):
        first -= 1
    if first == 1:
        raise DataError(f"{path} holds no images")
    return slice(1, first)


def _labels(data: np.ndarray, offsets: np.ndarray, path: Path) -> np.ndarray:
    """The label of each image, int64; headers are gathered a million at a time."""
    labels = np.empty(len(offsets), dtype=np.int64)
    width = _FRAME.size + _HEADER.size + 4
    for start in range(0, len(offsets), _AT_ONCE):
        part = offsets[start : start + _AT_ONCE]
        # The last record may be shorter than a header with a label behind it.
        rows = np.minimum(part[:, None] + np.arange(width), len(data) - 1)
        words = data[rows].view("<u4")
        values = words[:, 3].view("<f4").copy()
        whole = words[:, 1] >> 29 == 0
        several = whole & (words[:, 2] > 0)
        values[several] = words[several, 8].view("<f4")
        if (words[:, 0] != int.from_bytes(_MAGIC, "little")).any():
            raise DataError(f"{path} has no record where its index says so: the two files do not belong together")
        for place in np.flatnonzero(~whole):
            values[place] = _label(_payload(data, int(part[place]), path))
        if (whole & (words[:, 1] < _HEADER.size)).any() or not (np.isfinite(values) & (np.abs(values) < 2**31)).all():
            raise DataError(f"{path} has records without a label")
        labels[start : start + len(part)] = values.astype(np.int64)
    return labels


def _label(payload: bytes) -> float:
    flag, label = _HEADER.unpack_from(payload)[:2]
    found: float = struct.unpack_from("<f", payload, _HEADER.size)[0] if flag else label
    return found


def _content(payload: bytes, path: Path) -> int:
    """Where the image begins, behind the header and its labels."""
    begins: int = _HEADER.size + 4 * _HEADER.unpack_from(payload)[0]
    if begins > len(payload):
        raise DataError(f"{path} has a record whose header tells of more labels than it has")
    return begins


def _payload(data: np.ndarray, offset: int, path: Path) -> bytes:
    """The payload of the record at an offset, its parts joined."""
    parts: list[bytes] = []
    while True:
        frame = data[offset : offset + _FRAME.size].tobytes()
        if len(frame) < _FRAME.size or frame[:4] != _MAGIC:
            raise DataError(f"{path} has no record at byte {offset}: it is damaged, or the index is another file's")
        length = _FRAME.unpack(frame)[1]
        kind, length = length >> 29, length & _LENGTH
        part = data[offset + _FRAME.size : offset + _FRAME.size + length].tobytes()
        if len(part) < length or kind not in ((0, 1) if not parts else (2, 3)):
            raise DataError(f"{path} has a record at byte {offset} that is cut off or out of order")
        parts.append(part)
        if kind in (0, 3):
            payload = _MAGIC.join(parts)
            if len(payload) < _HEADER.size:
                raise DataError(f"{path} has a record at byte {offset} that is too short for a header")
            return payload
        offset += _FRAME.size + length + -length % 4
