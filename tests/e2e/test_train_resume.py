"""A run that is killed or interrupted goes on to the very numbers it would have had."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nearfar.cli import main
from photos import noisy_photos

# Weights and running centres in the criterion, dropout in the network, augmentation: all that could differ.
CONFIG = """
criterion: softmax + 0.003 * center
epochs: 4
steps_per_epoch: 25
checkpoint_every: 7
log_every: 5
seed: 3
model: {name: test_resnet, image_size: 32, embedding_size: 16, pool: flatten, options: {drop_rate: 0.2}}
batch: {classes_per_batch: 4, samples_per_class: 2}
optimizer: {lr: 0.002, criterion_lr: 0.01}
validation: {every: 1}
"""

STOPPED = ("killed", "interrupted", "terminated")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen classes of four noisy images."""
    return noisy_photos(tmp_path_factory.mktemp("photos"), classes=16, views=4, noise=0.4)


class Process:
    """``nearfar train`` in a process of its own."""

    def __init__(self, *arguments: object) -> None:
        code = "from nearfar.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "train", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=240)
        return self.process.returncode, out, err

    def when_it_exists(self, path: Path, signal_number: int) -> tuple[int, str, str]:
        """Send a signal as soon as the file is there."""
        begun = time.monotonic()
        while not path.exists() and self.process.poll() is None and time.monotonic() - begun < 240:
            time.sleep(0.001)
        self.process.send_signal(signal_number)
        return self.end()


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run four times: whole, and killed, interrupted or terminated and gone on."""
    root = tmp_path_factory.mktemp("runs")
    (root / "run.yaml").write_text(CONFIG)
    paths = {name: root / name for name in ("whole", *STOPPED)}
    arguments = (root / "run.yaml", "--data", photos, "--device", "cpu", "--set", "data.workers=0", "--output")
    whole = Process(*arguments, paths["whole"])
    code, _, err = Process(*arguments, paths["killed"]).when_it_exists(
        paths["killed"] / "checkpoint.pt", signal.SIGKILL
    )
    assert code == -signal.SIGKILL, err
    for name, number, ends in (("interrupted", signal.SIGINT, 130), ("terminated", signal.SIGTERM, 143)):
        code, out, err = Process(*arguments, paths[name]).when_it_exists(paths[name] / "checkpoint.pt", number)
        assert code == ends, err
        assert "stopping after this step" in out
        assert re.fullmatch(
            rf"nearfar: stopped after step \d+ of 100; to go on: nearfar train --resume \S+{name}\n", err
        )
    for name in STOPPED:
        assert not (paths[name] / "metrics.json").exists()
        step = torch.load(paths[name] / "checkpoint.pt", weights_only=True)["step"]
        assert 0 < step < 100
    assert whole.end()[0] == 0
    for process in [Process("--resume", paths[name]) for name in STOPPED]:
        code, out, err = process.end()
        assert code == 0, err
        assert re.search(r"going on after step \d+ of 100", out)
    return paths


@pytest.mark.parametrize("name", STOPPED)
def test_the_weights_are_those_of_the_uninterrupted_run(runs: dict[str, Path], name: str) -> None:
    whole, resumed = (load_file(runs[one] / "model.safetensors") for one in ("whole", name))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize("name", STOPPED)
def test_the_criterion_and_the_optimizer_are_too(runs: dict[str, Path], name: str) -> None:
    whole, resumed = (torch.load(runs[one] / "checkpoint.pt", weights_only=True) for one in ("whole", name))
    assert len(whole["criterion"]) >= 2  # the weights of one term, the centres of the other
    for key, value in whole["criterion"].items():
        assert torch.equal(value, resumed["criterion"][key])
    for index, state in whole["optimizer"]["state"].items():
        assert all(torch.equal(value, resumed["optimizer"]["state"][index][key]) for key, value in state.items())
    assert whole["best"] == resumed["best"]


@pytest.mark.parametrize("name", STOPPED)
@pytest.mark.parametrize("log", ["train.csv", "validation.csv"])
def test_the_logs_have_the_same_rows(runs: dict[str, Path], name: str, log: str) -> None:
    whole, resumed = ((runs[one] / "logs" / log).read_text() for one in ("whole", name))
    assert whole == resumed
    assert len(whole.splitlines()) == 1 + {"train.csv": 20, "validation.csv": 4}[log]


def test_a_finished_run_is_evaluated_to_the_same_table(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    def output_of(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert ended.value.code == 0
        return capsys.readouterr().out

    # The rounding of a convolution depends on the number of threads.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        again = json.loads(output_of("evaluate", str(runs["whole"]), "--json"))
    finally:
        torch.set_num_threads(threads)
    saved = json.loads((runs["whole"] / "metrics.json").read_text())
    assert again["test"] == saved["test"]
    assert set(saved["test"]) == {"raw", "untrained", "trained"}
    assert all(set(row) == {"recall@1", "recall@5", "map@r", "r_precision"} for row in saved["test"].values())
    assert saved["data"]["test_classes"] == 8


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seed", "4"], "seed: 3 → 4"),
        (["--epochs", "9"], "epochs: 4 → 9"),
        (["--model", "test_convnext"], "model.name: test_resnet → test_convnext"),
        (["--criterion", "sup_con"], "criterion: softmax + 0.003 * center → sup_con"),
    ],
)
def test_another_configuration_cannot_go_on(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--resume", str(runs["whole"]), *arguments])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_a_checkpoint_of_another_model_cannot_go_on(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = (runs["whole"] / "config.yaml").read_text().replace("embedding_size: 16", "embedding_size: 8")
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "checkpoint.pt").write_bytes((runs["whole"] / "checkpoint.pt").read_bytes())
    with pytest.raises(SystemExit) as ended:
        main(["train", "--resume", str(tmp_path)])
    assert ended.value.code == 2
    assert "is of another model than the configuration describes" in capsys.readouterr().err


def test_a_run_that_is_terminated_before_its_first_step_says_so(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    process = Process(tmp_path / "run.yaml", "--data", photos, "--output", tmp_path / "run")
    code, _, err = process.when_it_exists(tmp_path / "run" / "config.yaml", signal.SIGTERM)
    assert (code, err) == (143, "nearfar: terminated before the first step\n")


def test_a_run_is_never_overwritten(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = (runs["whole"] / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(SystemExit) as ended:
        main(["train", "--output", str(runs["whole"])])
    assert ended.value.code == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (runs["whole"] / "model.safetensors").stat().st_mtime_ns == before
