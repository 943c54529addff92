"""A run that searches its training set for what is hard, killed and gone on, has the numbers of a whole one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

CONFIG = """
criterion: triplet(miner=batch_hard)
epochs: 4
steps_per_epoch: 10
checkpoint_every: 7
log_every: 1
seed: 3
model: {name: test_resnet, image_size: 32, embedding_size: 16, pool: flatten}
batch: {classes_per_batch: 4, samples_per_class: 2}
mining: {offline: 1, absolute_margin: 0.001}
validation: {every: 4}
"""


def started(*arguments: object) -> subprocess.Popen[str]:
    code = "from nearfar.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from PIL import Image

    root = tmp_path_factory.mktemp("offline")
    generator = torch.Generator().manual_seed(0)
    for number in range(16):
        (root / "photos" / f"class{number}").mkdir(parents=True)
        for view in range(4):
            pixels = (torch.rand(24, 24, 3, generator=generator) * 255).byte().numpy()
            Image.fromarray(pixels).save(root / "photos" / f"class{number}" / f"{view}.png")
    (root / "run.yaml").write_text(CONFIG)
    arguments = (root / "run.yaml", "--data", root / "photos", "--device", "cpu", "--set", "data.workers=0", "--output")
    whole, killed = started(*arguments, root / "whole"), started(*arguments, root / "killed")
    begun = time.monotonic()
    # The last checkpoint is then of step 14: in the middle of what goes by the search after step 10.
    while not (root / "killed" / "hardest-20.safetensors").exists() and time.monotonic() - begun < 240:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert torch.load(root / "killed" / "checkpoint.pt", weights_only=True)["step"] == 14
    for process in (whole, started("--resume", root / "killed")):
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    return root / "whole", root / "killed"


def test_the_weights_and_the_losses_of_every_step_are_those_of_the_whole_run(runs: tuple[Path, Path]) -> None:
    whole, resumed = (load_file(run / "model.safetensors") for run in runs)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    logs = [(run / "logs" / "train.csv").read_text() for run in runs]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == 41


def test_searches_that_no_checkpoint_goes_on_with_are_removed(runs: tuple[Path, Path]) -> None:
    assert {path.name for path in runs[0].glob("hardest-*")} == {"hardest-20.safetensors", "hardest-30.safetensors"}
