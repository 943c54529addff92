"""A run whose batches go through the network in chunks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from nearfar.errors import ConfigError
from nearfar.train import resume, train

# A transformer looks at each image for itself; test_resnet has BatchNorm.
TINY = {
    "epochs": 1,
    "steps_per_epoch": 3,
    "log_every": 1,
    "device": "cpu",
    "model": {"name": "test_vit", "image_size": 32, "embedding_size": 8},
}
BATCH = {"classes_per_batch": 5, "samples_per_class": 3}


def losses(folder: Path) -> list[float]:
    with (folder / "logs" / "train.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_a_run_in_chunks_learns_as_the_whole_batch_does(tmp_path: Path) -> None:
    whole = train({**TINY, "batch": BATCH}, output=tmp_path / "whole", quiet=True)
    parts = train({**TINY, "batch": BATCH | {"chunk": 4}}, output=tmp_path / "parts", quiet=True)
    assert len(losses(whole.path)) == 3
    assert losses(parts.path) == pytest.approx(losses(whole.path), rel=1e-4)
    assert losses(parts.path)[2] != losses(parts.path)[0]
    with pytest.raises(ConfigError, match=r"batch\.chunk: 4 → 5"):
        resume(parts.path, ("--set", {"batch": {"chunk": 5}}))
