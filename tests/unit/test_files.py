"""Files are replaced at once or not at all, whatever writes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import nearfar
from nearfar.errors import CheckpointError, DataError, NearfarError
from nearfar.files import replaced, write_text
from nearfar.inference import Embeddings, write_embeddings
from nearfar.inference.embedding import _claim
from nearfar.inference.index import Index
from nearfar.models import create_model, save_class_vectors, save_model


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail() -> None:
        with replaced(path) as file:
            file.write(b"half of the new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_is_none_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        write_text(tmp_path / "file" / "inside", "text")


VECTORS = Embeddings(torch.eye(40), tuple(map(str, range(40))))


def index(path: Path) -> None:
    pytest.importorskip("faiss", reason="needs nearfar[search]")
    path.unlink(missing_ok=True)
    Index(path, VECTORS)


def parquet(path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    write_embeddings(VECTORS, path)


def classes(path: Path) -> None:
    save_class_vectors(nearfar.compose("softmax", num_classes=2, embedding_size=4), path, ["a", "b"])


def model(path: Path) -> None:
    save_model(create_model("test_resnet", 4, image_size=32), path)


WRITERS: dict[str, tuple[Callable[[Path], None], type[NearfarError]]] = {
    "model.safetensors": (
        lambda path: save_model(create_model("test_resnet", 4, image_size=32), path),
        CheckpointError,
    ),
    "classes.safetensors": (classes, CheckpointError),
    "embeddings.safetensors": (lambda path: write_embeddings(VECTORS, path), DataError),
    "embeddings.parquet": (parquet, DataError),
    "gallery.faiss": (index, DataError),
    "manifest.json": (lambda path: _claim(path.parent, {}, ()), DataError),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write, told = WRITERS[name]

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # Some file systems say so only when what was written is to be on the disk.
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(told, match=r"cannot be written: .*No space left on device"):
        write(tmp_path / name)
    assert os.listdir(tmp_path) == []
    monkeypatch.undo()
    write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
