"""The batches of a run that mines offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.testing.ranks import run_on_ranks
from nearfar.train import mined
from nearfar.train.config import Config
from nearfar.train.folder import RunFolder
from nearfar.train.job import Job, prepare
from nearfar.train.progress import Narrator

CLASSES, VIEWS = 20, 4


class Noise(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images without a pattern."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (CLASSES * VIEWS, 3, 32, 32), dtype=torch.uint8, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], index // VIEWS


def job(folder: Path, **changed: Any) -> Job:
    config: dict[str, Any] = {
        "criterion": "triplet",
        "epochs": 3,
        "steps_per_epoch": 2,
        "device": "cpu",
        "data": {"workers": 0},
        "model": {"name": "test_resnet", "image_size": 32, "embedding_size": 8},
        "batch": {"classes_per_batch": 4, "samples_per_class": 2},
        "mining": {"offline": 1},
        **changed,
    }
    made, _ = prepare(Config.of(("test", config)), Noise(), Narrator(quiet=True))
    made.folder = RunFolder.create(folder, "triplet")
    return made


def draws(of: Job) -> list[Any]:
    return list(mined.batches(of, lambda sampler: sampler))


def draw_on_ranks(rank: int, world: int, folder: Path) -> None:
    of = job(folder / str(rank), devices=world)
    searches = []
    search = mined.hardest
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(mined, "hardest", lambda *args, **kwargs: searches.append(1) or search(*args, **kwargs))
        for parameter in of.model.parameters():
            parameter *= 1 + 0.5 * rank * torch.rand_like(parameter)
        here = draws(of)
    everywhere: list[Any] = [None] * world
    dist.all_gather_object(everywhere, here)
    assert len(here) == 6
    assert everywhere[0] == everywhere[1]
    assert len(searches) == (2 if rank == 0 else 0)


def test_ranks_draw_the_same_batches_although_their_models_differ(tmp_path: Path) -> None:
    run_on_ranks(draw_on_ranks, 2, tmp_path)


def test_what_was_hard_for_another_run_is_not_drawn(tmp_path: Path) -> None:
    killed = RunFolder.create(tmp_path, "triplet")
    killed.config.write_text("epochs: 3\n")
    killed.search(2).write_bytes(b"of a run without a checkpoint")
    assert killed.searches() == {2: tmp_path / "hardest-2.safetensors"}
    assert RunFolder.create(tmp_path, "triplet").searches() == {}
    assert killed.config.exists()
