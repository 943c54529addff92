"""A run on several devices is the run on one: gloo processes on this machine against a single one."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nearfar.train import Run, resume, train
from nearfar.train.config import Config
from nearfar.train.progress import Narrator
from nearfar.train.run import Interrupted, start

# Noise has little to be told apart by.
pytestmark = pytest.mark.filterwarnings("ignore::nearfar.errors.CollapseWarning")

# A network in which no image depends on the others of its batch: of batch normalisation each rank has its own.
CONFIG = {
    "epochs": 2,
    "steps_per_epoch": 4,
    "checkpoint_every": 3,
    "log_every": 1,
    "model": {"name": "test_vit", "image_size": 32, "embedding_size": 16},
    "batch": {"classes_per_batch": 4, "samples_per_class": 2},
    "optimizer": {"lr": 0.0002},
    "validation": {"every": 2},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Thirteen classes of three noisy images: five to train on, so that two ranks have classes of unequal number."""
    from PIL import Image

    root = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for number in range(13):
        (root / f"class{number}").mkdir()
        for view in range(3):
            pixels = torch.rand(16, 16, 3, generator=generator)
            Image.fromarray((pixels * 255).byte().numpy()).save(root / f"class{number}" / f"{view}.png")
    return str(root)


def run(photos: str, output: Path, **changes: object) -> Run:
    return train({**CONFIG, "data": {"source": photos, "workers": 0}, **changes}, output=output, quiet=True)


def rows(run: Run) -> list[dict[str, float]]:
    with (run.path / "logs" / "train.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def tensors(run: Run) -> dict[str, torch.Tensor]:
    """Whatever the checkpoint holds."""
    content = torch.load(run.path / "checkpoint.pt", weights_only=True)
    found = {f"{part}.{name}": value for part in ("model", "criterion") for name, value in content[part].items()}
    for number, state in content["optimizer"]["state"].items():
        found |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    return found


#: AdamW makes whole steps of gradients that are zero but for rounding, as those of an attention's keys' biases are.
SGD = {"name": "sgd", "lr": 0.0002}


def assert_the_same(one: Run, two: Run) -> None:
    for alone, together in zip(rows(one), rows(two), strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)
    first, second = tensors(one), tensors(two)
    assert first.keys() == second.keys()
    for name, value in first.items():
        # As wholes: a number next to zero is rounding, on one device as on two.
        gap = torch.linalg.vector_norm(second[name].double() - value.double())
        assert gap <= 1e-3 * torch.linalg.vector_norm(value.double()) + 1e-5, name


def test_two_devices_do_what_one_does(photos: str, tmp_path: Path) -> None:
    # A loss between the embeddings of the whole batch, one with parameters and a moving number, one that keeps state.
    recipe = "triplet(miner=semihard) + arcface(margin=linear(0, 0.5, steps=3)) + 0.1 * adaface"
    one = run(photos, tmp_path / "one", criterion=recipe, optimizer=SGD)
    two = run(photos, tmp_path / "two", criterion=recipe, optimizer=SGD, devices=2)
    assert two.metrics["run"]["devices"] == 2
    assert_the_same(one, two)


@pytest.mark.long
@pytest.mark.parametrize(
    "criterion", ["arcface", "adaface(margin=linear(0, 0.4, steps=5))", "subcenter_arcface", "proxy_anchor"]
)
def test_classes_shared_out_give_what_one_process_gives(photos: str, tmp_path: Path, criterion: str) -> None:
    one = run(photos, tmp_path / "one", criterion=criterion, optimizer=SGD)
    two = run(photos, tmp_path / "two", criterion=criterion, optimizer=SGD, devices=2, head={"shard": True})
    assert_the_same(one, two)
    alone, together = one.class_vectors(), two.class_vectors()
    assert together.names == alone.names
    name = f"{criterion.split('(')[0]}.weight"
    assert set(together.vectors) == set(alone.vectors) == {name}
    torch.testing.assert_close(together.vectors[name], alone.vectors[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=pytest.mark.long)])
def test_class_vectors_that_start_at_means_start_alike_on_two_devices(photos: str, tmp_path: Path, shard: bool) -> None:
    # With steps of next to no length proxies stay where they started; centres have no rate and move on from there.
    changes = {"criterion": "proxy_anchor + 0.1 * center(normalize=True)", "optimizer": SGD | {"lr": 1e-9}}
    one = run(photos, tmp_path / "one", head={"start": "class_means"}, **changes)
    two = run(photos, tmp_path / "two", head={"start": "class_means", "shard": shard}, devices=2, **changes)
    drawn = run(photos, tmp_path / "drawn", **changes).class_vectors().vectors
    alone, together = one.class_vectors().vectors, two.class_vectors().vectors
    assert not torch.allclose(alone["proxy_anchor.weight"], drawn["proxy_anchor.weight"], rtol=0.1)
    for name, vectors in alone.items():
        torch.testing.assert_close(together[name], vectors, rtol=1e-4, atol=1e-6)
    assert_the_same(one, two)


@pytest.mark.long
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_classes_shared_out_beside_what_is_not_and_clipped_give_what_one_process_gives(
    photos: str, tmp_path: Path, rate: float
) -> None:
    # Below the norms of these gradients, so that all steps are clipped.
    changes = {
        "criterion": "softmax(miner=semihard(margin=0.2)) + 0.5 * triplet + 0.003 * center",
        "optimizer": SGD | {"lr": 0.02, "clip": 0.2},
    }
    one = run(photos, tmp_path / "one", head={"sample_rate": rate}, **changes)
    two = run(photos, tmp_path / "two", head={"sample_rate": rate, "shard": True}, devices=2, **changes)
    assert min(row["gradient_norm"] for row in rows(one)) > 0.2
    assert_the_same(one, two)


@pytest.mark.long
@pytest.mark.parametrize("optimizer", [SGD, {"name": "adamw", "lr": 0.0002}], ids=["sgd", "adamw"])
def test_a_share_of_the_classes_is_the_same_on_two_devices(
    photos: str, tmp_path: Path, optimizer: dict[str, object]
) -> None:
    changes = {"criterion": "arcface", "optimizer": optimizer}
    one = run(photos, tmp_path / "one", head={"sample_rate": 0.3}, **changes)
    two = run(photos, tmp_path / "two", head={"sample_rate": 0.3, "shard": True}, devices=2, **changes)
    assert rows(two)[0] == pytest.approx(rows(one)[0], rel=1e-4)
    vectors = "criterion.losses.arcface.weight"
    gap = torch.linalg.vector_norm(tensors(two)[vectors] - tensors(one)[vectors])
    assert gap <= 1e-2 * torch.linalg.vector_norm(tensors(one)[vectors])
    assert tensors(two)["criterion.losses.arcface.sampler.steps"] == 8
    if optimizer is SGD:
        assert_the_same(one, two)


class _StopsAt(Narrator):
    """Presses Ctrl-C when a step is done."""

    def __init__(self, last: int) -> None:
        super().__init__(quiet=True)
        self.last = last

    def step(self, step: int) -> None:
        if step == self.last:
            os.kill(os.getpid(), signal.SIGINT)


def assert_goes_on_to_the_bit(whole: Run, photos: str, output: Path, **changes: object) -> None:
    """The same run, stopped and resumed, ends as the one that was not."""
    config = Config.of({**CONFIG, "data": {"source": photos, "workers": 0}, **changes})
    with pytest.raises(Interrupted):
        start(config, output=output, narrator=_StopsAt(3))
    again = resume(output, narrator=Narrator(quiet=True))
    for name, value in tensors(whole).items():
        assert torch.equal(tensors(again)[name], value), name
    assert rows(whole) == rows(again)


def test_a_run_on_a_share_of_the_classes_goes_on_to_the_bit(photos: str, tmp_path: Path) -> None:
    changes = {"criterion": "arcface + 0.5 * triplet", "head": {"sample_rate": 0.3}}
    whole = run(photos, tmp_path / "whole", **changes)
    every_class = run(photos, tmp_path / "every", criterion=changes["criterion"])
    assert_goes_on_to_the_bit(whole, photos, tmp_path / "again", **changes)
    assert rows(whole) != rows(every_class)


def test_class_vectors_that_the_backward_pass_steps_end_where_sgd_has_them(photos: str, tmp_path: Path) -> None:
    changes = {"criterion": "0.5 * triplet + arcface", "optimizer": SGD | {"lr": 0.01}}
    afterwards = run(photos, tmp_path / "afterwards", **changes)
    fused = run(photos, tmp_path / "fused", head={"fused": True}, **changes)
    assert_the_same(afterwards, fused)
    vectors, begun = "criterion.losses.arcface.weight", run(photos, tmp_path / "begun", **changes, epochs=1)
    assert (tensors(fused)[vectors] - tensors(begun)[vectors]).abs().max() > 1e-3


def test_a_run_whose_backward_pass_steps_goes_on_to_the_bit(photos: str, tmp_path: Path) -> None:
    changes = {"criterion": "arcface", "optimizer": SGD | {"lr": 0.01}, "head": {"fused": True}}
    whole = run(photos, tmp_path / "whole", **changes)
    assert_goes_on_to_the_bit(whole, photos, tmp_path / "again", **changes)


@pytest.mark.long
def test_the_backward_pass_steps_the_classes_of_each_device(photos: str, tmp_path: Path) -> None:
    changes = {"criterion": "arcface", "optimizer": SGD}
    one = run(photos, tmp_path / "one", head={"fused": True}, **changes)
    two = run(photos, tmp_path / "two", head={"fused": True, "shard": True}, devices=2, **changes)
    assert_the_same(one, two)


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    begin = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nearfar"]
    return subprocess.run([*begin, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.long
def test_torchrun_starts_the_processes_as_well(photos: str, tmp_path: Path) -> None:
    changes = {"criterion": "arcface", "optimizer": SGD, "head": {"shard": True, "sample_rate": 0.5}}
    (tmp_path / "run.yaml").write_text(
        repr({**CONFIG, "data": {"source": photos, "workers": 0}, **changes}).replace("True", "true")
    )
    ended = torchrun("train", tmp_path / "run.yaml", "--output", tmp_path / "two")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("holds the run;") == 1
    two = Run.open(tmp_path / "two")
    assert two.metrics["run"]["devices"] == 2
    assert_the_same(run(photos, tmp_path / "one", **changes), two)


@pytest.mark.long
@pytest.mark.parametrize("said", [("--set", "optimizer.lr=-1"), ("--criterion", "arcfacce"), ("--devices", "3")])
def test_what_is_wrong_is_told_once_under_torchrun(photos: str, tmp_path: Path, said: tuple[str, str]) -> None:
    ended = torchrun("train", "--data", photos, "--output", tmp_path / "run", *said)
    assert ended.returncode != 0
    assert len([line for line in ended.stderr.splitlines() if line.startswith("nearfar: ")]) == 1, ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_what_is_stopped_goes_on_on_two_devices_to_the_bit_and_on_one_to_rounding(photos: str, tmp_path: Path) -> None:
    changes = {"criterion": "adaface", "steps_per_epoch": 60, "devices": 2, "head": {"shard": True}}
    whole = run(photos, tmp_path / "whole", **changes)
    for name, number, ends in (("again", signal.SIGTERM, 143), ("alone", signal.SIGINT, 130)):
        code, said = stopped(photos, tmp_path / name, number, **changes)
        assert code == ends
        assert "Traceback" not in said
        assert re.search(r"stopped after step \d+ of 120; to go on: nearfar train --resume", said)
    again = resume(tmp_path / "again", narrator=Narrator(quiet=True))
    assert (again.path / "logs" / "train.csv").read_text() == (whole.path / "logs" / "train.csv").read_text()
    for name, value in tensors(whole).items():
        assert torch.equal(tensors(again)[name], value), name
    alone = resume(tmp_path / "alone", ("--devices", {"devices": 1}), narrator=Narrator(quiet=True))
    assert rows(alone)[-1] == pytest.approx(rows(whole)[-1], rel=0.02, abs=0.01)


def stopped(photos: str, output: Path, number: int, **changes: object) -> tuple[int, str]:
    """A run in a process of its own, told to stop once it has a checkpoint."""
    config = {**CONFIG, "data": {"source": photos, "workers": 0}, **changes}
    (output.parent / f"{output.name}.yaml").write_text(repr(config).replace("True", "true"))
    process = subprocess.Popen(
        [sys.executable, "-m", "nearfar", "train", f"{output}.yaml", "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (output / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    said, _ = process.communicate(timeout=240)
    return process.returncode, said


@pytest.mark.long
def test_a_killed_rank_ends_the_run_with_one_sentence(photos: str, tmp_path: Path) -> None:
    config = {**CONFIG, "data": {"source": photos, "workers": 0}, "steps_per_epoch": 1000, "devices": 2}
    (tmp_path / "run.yaml").write_text(repr(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "nearfar", "train", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run" / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not ranks.exists():
        process.kill()
        pytest.skip("needs a system that lists the processes of a process")
    spawned = [pid for pid in ranks.read_text().split() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(spawned[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert said.count("nearfar: the process of rank") == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in spawned)
