"""What a run refuses before its first step, so that nothing is spoiled and no number misleads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

import nearfar
from nearfar.errors import ConfigError, DataError
from nearfar.train import evaluate, train

TINY = {
    "epochs": 1,
    "steps_per_epoch": 1,
    "batch": {"classes_per_batch": 2, "samples_per_class": 2},
    "model": {"name": "test_resnet", "image_size": 32, "embedding_size": 8},
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight classes of four images, one colour each."""
    folder = tmp_path / "photos"
    for number in range(8):
        for copy in range(4):
            path = folder / f"class{number}" / f"{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (30 * number, 20 * copy, 99)).save(path)
    return folder


def test_a_run_is_not_written_among_other_files(photos: Path) -> None:
    before = sorted(photos.iterdir())
    with pytest.raises(ConfigError, match="holds other files than a run's: choose another folder"):
        train({**TINY, "data": {"source": str(photos)}}, output=photos, quiet=True)
    assert sorted(photos.iterdir()) == before


def test_a_class_in_two_splits_is_refused_by_name(photos: Path, tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        shutil.copytree(photos, tmp_path / "divided" / split)
    with pytest.raises(DataError, match=r"8 classes are in train and in validation \(class0, class1, class2 …\)"):
        train({**TINY, "data": {"source": str(tmp_path / "divided")}}, output=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_criterion_that_cannot_judge_is_found_before_a_folder_is_made(photos: Path, tmp_path: Path) -> None:
    class Picky(nearfar.EmbeddingLoss):
        """A loss that finds too little in any batch."""

        def terms(self, batch):
            raise ValueError("five classes at least")

    nearfar.register("picky", Picky)
    try:
        config = {**TINY, "criterion": "picky", "data": {"source": str(photos)}}
        with pytest.raises(
            ConfigError, match="criterion picky cannot judge a batch: ValueError: five classes at least"
        ):
            train(config, output=tmp_path / "run", quiet=True)
    finally:
        nearfar.unregister("picky")
    assert not (tmp_path / "run").exists()


def test_a_folder_given_as_data_is_a_source_and_foreign_data_is_not_called_unseen(photos: Path, tmp_path: Path) -> None:
    run = train(TINY, data=str(photos), output=tmp_path / "run", quiet=True)
    assert run.config.data.source == str(photos)
    assert "unseen test classes" in evaluate(run.path)[1]
    with pytest.raises(DataError, match="data has no test"):
        evaluate(run.path, data={"train": str(photos)})
    shutil.copytree(photos, tmp_path / "others")
    assert "unseen" not in evaluate(run.path, data=str(tmp_path / "others"))[1]
    log = (run.path / "logs" / "train.csv").read_text(encoding="utf-8").splitlines()
    assert len(log) == 2
