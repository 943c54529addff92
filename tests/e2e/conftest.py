"""Two runs on classes with names that break careless pages, and the page about both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from awkward import LONG, QUOTE, SCRIPT
from nearfar.report import write_report
from nearfar.train import train


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three names that break careless pages are among the test classes, whose folder is given as such."""
    root = tmp_path_factory.mktemp("data") / "photos"
    generator = torch.Generator().manual_seed(0)
    for split, names in {
        "train": [f"train{number}" for number in range(4)],
        "validation": [f"validation{number}" for number in range(3)],
        "test": [SCRIPT, QUOTE, LONG, "plain"],
    }.items():
        for name in names:
            (root / split / name).mkdir(parents=True)
            colour = torch.rand(3, 1, 1, generator=generator)
            for view in range(4):
                pixels = 255 * (0.6 * colour + 0.4 * torch.rand(3, 80, 80, generator=generator))
                image = Image.fromarray(pixels.byte().permute(1, 2, 0).numpy())
                image.save(root / split / name / f"{view}.png")
    return root


def trained(photos: Path, output: Path, criterion: str) -> Path:
    config = {
        "criterion": criterion,
        "epochs": 2,
        "steps_per_epoch": 3,
        "device": "cpu",
        "log_every": 1,
        "model": {"name": "test_resnet", "image_size": 32, "embedding_size": 8},
        "batch": {"classes_per_batch": 2, "samples_per_class": 2},
        "validation": {"every": 1},
        "data": {"source": str(photos), "workers": 0},
    }
    return train(config, output=output, quiet=True).path


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    first = trained(photos, folder / "triplets", "triplet(margin=0.2, miner=semihard) + 0.1 * contrastive")
    return first, trained(photos, folder / "arcs", "arcface(margin=0.3)")


@pytest.fixture(scope="module")
def text(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    made = write_report(runs, tmp_path_factory.mktemp("page") / "report.html", device="cpu")
    assert made.notes == ()
    assert made.size == made.path.stat().st_size
    return made.path.read_text(encoding="utf-8")
