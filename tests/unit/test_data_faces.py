"""Faces: files of the field read and written, hostile ones refused, alignment against a direct computation."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates

from nearfar.data.faces import TEMPLATES, RecordFaces, align, read_pairs, write_pairs, write_records
from nearfar.errors import DataError, InputError

MAGIC = struct.pack("<I", 0xCED7230A)


def picture(seed: int = 0, size: int = 16, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def faces(people: int = 3, images: int = 4) -> list[tuple[bytes, int]]:
    return [(picture(10 * person + image), person) for person in range(people) for image in range(images)]


# Records.


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = faces()
    write_records(tmp_path / "train.rec", written)
    found = RecordFaces(tmp_path / "train.rec", image_size=16)
    assert found.labels.tolist() == [label for _, label in written]
    assert [found.encoded(place) for place in range(len(found))] == [encoded for encoded, _ in written]
    assert torch.equal(
        found.image(5), torch.from_numpy(np.array(Image.open(io.BytesIO(written[5][0])))).permute(2, 0, 1)
    )
    assert (tmp_path / "property").read_text() == "3,112,112\n"
    found.check()


def test_a_payload_that_holds_the_magic_number_is_joined_again(tmp_path: Path) -> None:
    # At multiples of four it is cut there; elsewhere it stands as it is. The header is 24 bytes.
    awkward = [MAGIC, b"ab" + MAGIC, MAGIC * 3, b"abcd" + MAGIC + b"e", b"xyz" + MAGIC + MAGIC]
    write_records(tmp_path / "a.rec", [(payload, 0) for payload in awkward])
    found = RecordFaces(tmp_path / "a.rec")
    assert [found.encoded(place) for place in range(len(awkward))] == awkward


def record(payload: bytes) -> bytes:
    return MAGIC + struct.pack("<I", len(payload)) + payload + bytes(-len(payload) % 4)


def write_raw(path: Path, payloads: dict[int, bytes]) -> None:
    with path.open("wb") as records, path.with_suffix(".idx").open("w") as index:
        for key, payload in payloads.items():
            index.write(f"{key}\t{records.tell()}\n")
            records.write(record(payload))


def test_a_flat_file_has_an_image_in_every_record(tmp_path: Path) -> None:
    payloads = {key: struct.pack("<IfQQ", 0, key % 2, key, 0) + picture(key) for key in range(6)}
    write_raw(tmp_path / "flat.rec", payloads)
    found = RecordFaces(tmp_path / "flat.rec")
    assert found.keys.tolist() == list(range(6))
    assert found.labels.tolist() == [0, 1] * 3


def test_labels_behind_the_header_take_the_place_of_the_one_in_it(tmp_path: Path) -> None:
    payloads = {key: struct.pack("<IfQQ2f", 2, 99, key, 0, 7 + key, 3) + picture(key) for key in range(4)}
    write_raw(tmp_path / "two.rec", payloads)
    found = RecordFaces(tmp_path / "two.rec")
    assert found.class_names == ("7", "8", "9", "10")
    assert found.encoded(2) == picture(2)


def test_numbers_rounded_to_float32_are_not_believed(tmp_path: Path) -> None:
    # As above 2^24 records: the first record tells of a place that is off by some.
    for told in (3, 4, 5, 6, 7):
        payloads = {0: struct.pack("<IfQQ2f", 2, 0, 0, 0, told, 7)}
        payloads |= {key: struct.pack("<IfQQ", 0, key // 3, key, 0) + picture(key) for key in range(1, 5)}
        payloads |= {key: struct.pack("<IfQQ2f", 2, 0, key, 0, 1, 3) for key in (5, 6)}
        write_raw(tmp_path / f"off{told}.rec", payloads)
        assert RecordFaces(tmp_path / f"off{told}.rec").keys.tolist() == [1, 2, 3, 4]


def test_a_source_of_records_travels_to_other_processes(tmp_path: Path) -> None:
    write_records(tmp_path / "train.rec", faces())
    found = RecordFaces(tmp_path / "train.rec")
    assert pickle.loads(pickle.dumps(found)).encoded(3) == found.encoded(3)


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    write_records(tmp_path / "train.rec", faces())
    before = (tmp_path / "train.rec").read_bytes()
    with pytest.raises(DataError, match="cannot write"):
        write_records(tmp_path / "train.rec", faces(2))
    assert (tmp_path / "train.rec").read_bytes() == before


def test_an_identity_that_comes_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sort them by identity"):
        write_records(tmp_path / "a.rec", [(b"x", 0), (b"x", 1), (b"x", 0)])


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ("", "no index"),
        ("0\t0\n0\t0\n", "twice"),
        ("a\tb\n", "no index"),
        ("0\t-4\n", "no index"),
        ("0 0\n", "no index"),
    ],
)
def test_an_index_that_is_none_is_told(tmp_path: Path, index: str, match: str) -> None:
    write_records(tmp_path / "train.rec", faces())
    (tmp_path / "train.idx").write_text(index)
    with pytest.raises(DataError, match=match):
        RecordFaces(tmp_path / "train.rec")


# Verification sets.


def test_pairs_come_back_as_they_were_written(tmp_path: Path) -> None:
    encoded = [picture(seed) for seed in range(6)]
    write_pairs(tmp_path / "lfw.bin", encoded, [True, False, True])
    found = read_pairs(tmp_path / "lfw.bin")
    assert list(found.encoded) == encoded
    assert found.same.tolist() == [True, False, True]
    assert found.image(3, 16).shape == (3, 16, 16)
    assert len(found) == 3


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["bytes", "arrays"])
def test_pairs_of_every_protocol_and_of_arrays_are_read(tmp_path: Path, protocol: int, kind: str) -> None:
    encoded = [picture(seed) for seed in range(4)]
    bins = encoded if kind == "bytes" else [np.frombuffer(image, dtype=np.uint8).copy() for image in encoded]
    (tmp_path / "a.bin").write_bytes(pickle.dumps((bins, [True, False]), protocol=protocol))
    assert list(read_pairs(tmp_path / "a.bin").encoded) == encoded


def test_pairs_pickled_by_python_2_are_read(tmp_path: Path) -> None:
    # (['\xff\xd8', 'ab'], [True]) by protocol 0 and 2 of Python 2, whose strings are bytes.
    for content in (
        b"((lp0\nS'\\xff\\xd8'\np1\naS'ab'\np2\na(lp3\nI01\natp4\n.",
        b"\x80\x02]q\x00(U\x02\xff\xd8U\x02abe]\x88a\x86q\x01.",
    ):
        (tmp_path / "two.bin").write_bytes(content)
        found = read_pairs(tmp_path / "two.bin")
        assert found.encoded == (b"\xff\xd8", b"ab")
        assert found.same.tolist() == [True]


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_program_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(([Runs(f"touch {tmp_path}/ran")], [True])))
    with pytest.raises(DataError, match=r"asks for (posix|nt)\.system; it was not run"):
        read_pairs(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        ([b"a"], [True]),
        ([b"a", b"b"], [True, False]),
        ([b"a", "b"], [True]),
        ([b"a", b"b"], [7]),
        ([], []),
        "neither",
        ([b"a", b"b"], OrderedDict(a=1)),
    ],
)
def test_what_is_no_list_of_pairs_is_told(tmp_path: Path, content: object) -> None:
    (tmp_path / "a.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError):
        read_pairs(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04r\xff\xff\xff\x7f.",  # a memo of two thousand million places
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00abc.",  # a string of 2^40 bytes, of which three are there
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\x00\x00]q\x00.",  # a frame as long
        b"cnumpy\nndarray\n(I1000000000000\ntR.",
        b"cbuiltins\nbytes\n(I1000000000000\ntR.",
    ],
)
def test_lengths_that_lie_take_no_memory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError):
        read_pairs(tmp_path / "a.bin")


def test_text_is_not_multiplied(tmp_path: Path) -> None:
    text = b"X" + struct.pack("<I", 1000) + b"a" * 1000
    again = b"h\x02h\x01\x85R"
    content = b"\x80\x02" + text + b"q\x01" + b"c_codecs\nencode\nq\x02" + again * 100 + b"."
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError, match="more bytes than it holds"):
        read_pairs(tmp_path / "a.bin")


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    write_pairs(tmp_path / "a.bin", [bomb, bomb], [True])
    with pytest.raises(DataError, match="60000"):
        read_pairs(tmp_path / "a.bin").image(0)


# Alignment.


@pytest.mark.parametrize("size", [(112, 112), (96, 112)])
def test_landmarks_land_on_the_template(size: tuple[int, int]) -> None:
    turn, scale, shift = 0.4, 1.7, np.array([30.0, 12.0])
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = np.array(TEMPLATES[size]) @ matrix.T + shift
    pixels = np.random.default_rng(0).integers(0, 256, (300, 280), dtype=np.uint8)
    pixels = np.array(Image.fromarray(pixels).resize((560, 600), Image.Resampling.BICUBIC).resize((280, 300)))
    found = np.array(align(Image.fromarray(pixels), landmarks.tolist(), size), dtype=np.float64)
    y, x = np.mgrid[: size[1], : size[0]]
    source = np.stack([x, y], -1) @ matrix.T + shift
    expected = map_coordinates(pixels.astype(np.float64), [source[..., 1], source[..., 0]], order=1, cval=0)
    inside = (source > 1).all(-1) & (source[..., 0] < 278) & (source[..., 1] < 298)
    assert found.shape == expected.shape
    assert np.abs(found - expected)[inside].max() < 3


def test_the_similarity_is_the_least_squares_one() -> None:
    draw = np.random.default_rng(0)
    landmarks = np.array(TEMPLATES[112, 112]) + draw.normal(0, 4, (5, 2))
    image = Image.fromarray(draw.integers(0, 256, (112, 112, 3), dtype=np.uint8))
    taken = {}
    original = Image.Image.transform
    try:
        Image.Image.transform = lambda self, *args: taken.update(matrix=args[2]) or original(self, *args)
        align(image, landmarks.tolist())
    finally:
        Image.Image.transform = original
    a, b, c, d, e, f = taken["matrix"]
    back = np.array([[a, b, c], [d, e, f], [0, 0, 1]])
    corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    forward = np.linalg.inv(np.linalg.inv(corner) @ back @ corner)
    # Unknowns: u, v, tx, ty of (u −v; v u).
    rows, wanted = [], []
    for (x, y), (to_x, to_y) in zip(landmarks, TEMPLATES[112, 112], strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        wanted += [to_x, to_y]
    u, v, tx, ty = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    np.testing.assert_allclose(forward[:2], [[u, -v, tx], [v, u, ty]], atol=1e-9)


@pytest.mark.parametrize("landmarks", [[[1, 2]] * 5, [[0, 0]] * 4, [[0, float("nan")]] * 5])
def test_landmarks_that_are_none_are_told(landmarks: list[list[float]]) -> None:
    with pytest.raises(InputError, match="landmarks"):
        align(Image.new("RGB", (50, 50)), landmarks)
    with pytest.raises(InputError, match="no template"):
        align(Image.new("RGB", (50, 50)), np.random.rand(5, 2).tolist(), (64, 64))
