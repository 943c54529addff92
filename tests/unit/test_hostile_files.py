"""A thousand damaged files of every kind that is read: each is refused in one sentence, or read as it stands.

The damage is drawn by a fixed seed: bytes changed, cut off, put in, taken out, or written over by what formats find
special. Nothing else than a DataError may come of it, and no file of some hundred bytes may ask for much memory.
"""

from __future__ import annotations

import io
import pickle
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.data import ImageTable
from nearfar.data.faces import RecordFaces, read_pairs, write_records
from nearfar.data.image import dimensions, read
from nearfar.data.imagefolder import SUFFIXES
from nearfar.data.pairlist import read_pair_list
from nearfar.errors import DataError
from nearfar.inference import Calibration, Embeddings, read_embeddings, write_embeddings

COUNT = 1000
#: What a reader may take for a file of at most a few thousand bytes.
MOST_MEMORY = 2**26
SPECIAL = (b"\xff\xff\xff\xff", b"\0\0\0\0", struct.pack("<I", 0xCED7230A), b"\xff\xff\xff\x7f", b'"', b",", b"\r\n")

#: The name of a column may be damaged too, which is told.
MISSPELT = pytest.mark.filterwarnings("ignore:the column .* is passed over:nearfar.errors.NearfarWarning")


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A file with some damage."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(data)) if data else 0
        kind = draw.randrange(5)
        if kind == 0 and data:
            data[place] = draw.randrange(256)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = bytes(draw.randrange(256) for _ in range(draw.choice((1, 4, 64))))
        elif kind == 3:
            del data[place : place + draw.choice((1, 4, 64))]
        else:
            said = draw.choice(SPECIAL)
            data[place : place + len(said)] = said
    return bytes(data)


def refused(damage: Callable[[random.Random], object], use: Callable[[], object], *, least: float = 0.3) -> None:
    """Damage a file a thousand times and use it; most times it is refused, each time in one sentence."""
    draw = random.Random(0)
    told: list[str] = []
    tracemalloc.start()
    try:
        for _ in range(COUNT):
            damage(draw)
            try:
                use()
            except DataError as error:
                told.append(str(error))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert least * COUNT < len(told) <= COUNT
    assert [message for message in told if "\n" in message or not message] == []
    assert peak < MOST_MEMORY


def picture(seed: int = 0, kind: str = "PNG", size: int = 12) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_verification_sets(tmp_path: Path) -> None:
    encoded = [picture(seed, size=8) for seed in range(4)]
    good = [
        pickle.dumps((encoded, [True, False]), protocol=4),
        pickle.dumps((encoded, [True, False]), protocol=0),
        pickle.dumps(([np.frombuffer(image, dtype=np.uint8) for image in encoded], [True, False]), protocol=2),
    ]
    path = tmp_path / "bad.bin"

    def use() -> None:
        found = read_pairs(path)
        for place in range(len(found.encoded)):
            found.image(place, 8)

    refused(lambda draw: path.write_bytes(mutated(draw.choice(good), draw)), use)


def test_record_files(tmp_path: Path) -> None:
    write_records(tmp_path / "good.rec", [(picture(3 * who + n), who) for who in range(2) for n in range(3)])
    good, index = (tmp_path / "good.rec").read_bytes(), (tmp_path / "good.idx").read_bytes()
    path = tmp_path / "bad.rec"

    def damage(draw: random.Random) -> None:
        which = draw.randrange(3)
        path.write_bytes(mutated(good, draw) if which != 1 else good)
        path.with_suffix(".idx").write_bytes(mutated(index, draw) if which != 0 else index)

    refused(damage, lambda: RecordFaces(path, image_size=8).check())


def table(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Columns of a table that has all there may be, and its lines."""
    rows = []
    for label in range(6):
        for number in range(2):
            (folder / f"{label}_{number}.png").write_bytes(picture(label))
            split = ("train", "train", "val", "val", "query", "gallery")[label]
            who = "c4" if label > 3 else f"c{label}"
            rows.append([f"{label}_{number}.png", who, f"k{number}", split, f"t{label}{number}", "1"])
    names = ["path", "label", "camera", "split", "template", "media"]
    lines = [",".join(names), *map(",".join, rows)]
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}, lines


@MISSPELT
def test_tables_of_text(tmp_path: Path) -> None:
    good = "\n".join(table(tmp_path)[1]).encode()
    path = tmp_path / "bad.csv"
    refused(lambda draw: path.write_bytes(mutated(good, draw)), lambda: ImageTable(path, image_size=8))


@MISSPELT
def test_tables_of_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(table(tmp_path)[0]), tmp_path / "good.parquet")
    good = (tmp_path / "good.parquet").read_bytes()
    path = tmp_path / "bad.parquet"
    refused(lambda draw: path.write_bytes(mutated(good, draw)), lambda: ImageTable(path, image_size=8))


@MISSPELT
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_lists_of_pairs(tmp_path: Path, ending: str) -> None:
    columns = {"a": ["x", "y", "z"], "b": ["y", "z", "x"], "same": ["1", "0", "0"], "fold": ["1", "2", "1"]}
    good, path = tmp_path / f"good{ending}", tmp_path / f"bad{ending}"
    if ending == ".csv":
        good.write_text("\n".join(map(",".join, [columns, *zip(*columns.values(), strict=True)])))
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), good)
    content = good.read_bytes()
    refused(lambda draw: path.write_bytes(mutated(content, draw)), lambda: read_pair_list(path))


@pytest.mark.parametrize("ending", sorted({ending for ending in SUFFIXES if ending not in (".jpeg", ".tif", ".pbm")}))
def test_images(tmp_path: Path, ending: str) -> None:
    good = tmp_path / f"good{ending}"
    Image.open(io.BytesIO(picture())).convert("L" if ending == ".pgm" else "RGB").save(good)
    content, path = good.read_bytes(), tmp_path / f"bad{ending}"

    def use() -> None:
        dimensions(path)
        read(path, 8)

    # A pixel more or less is no damage in formats that keep no sum of their bytes.
    refused(lambda draw: path.write_bytes(mutated(content, draw)), use, least=0.1)


@pytest.mark.parametrize("ending", [".safetensors", ".parquet"])
def test_embeddings(tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    write_embeddings(Embeddings(x, tuple("abcdef"), {"weights": "w"}), tmp_path / f"good{ending}")
    good, path = (tmp_path / f"good{ending}").read_bytes(), tmp_path / f"bad{ending}"
    refused(lambda draw: path.write_bytes(mutated(good, draw)), lambda: read_embeddings(path))


def test_calibrations(tmp_path: Path) -> None:
    made = Calibration(
        threshold=0.5, far=0.001, tar=0.9, wanted=0.001, genuine=30, impostors=99, interval=(0.8, 0.95), model="m",
        flip="none",
    )  # fmt: skip
    made.write(tmp_path / "good.json")
    good, path = (tmp_path / "good.json").read_bytes(), tmp_path / "bad.json"
    refused(lambda draw: path.write_bytes(mutated(good, draw)), lambda: Calibration.read(path))
