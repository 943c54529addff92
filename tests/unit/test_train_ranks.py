"""What a run on several devices is made of, in one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

import nearfar
from nearfar import cli
from nearfar.data import PKSampler
from nearfar.errors import ConfigError
from nearfar.train.config import Config
from nearfar.train.job import Job, prepare
from nearfar.train.launch import launch
from nearfar.train.progress import Narrator
from nearfar.train.ranks import Ranks, Share
from nearfar.train.run import train
from nearfar.train.shards import rows_of_states, rows_of_tensors, shard_classes, sharded_names, told_whole, whole

CONTEXT = {"num_classes": 5, "embedding_size": 4}


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=(tmp_path / "meet").as_uri(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_the_shares_of_a_batch_are_the_batch_in_order() -> None:
    sampler = PKSampler([0, 0, 1, 1, 2, 2, 3, 3], classes_per_batch=3, samples_per_class=2, steps=4, seed=0)
    shares = [list(Share(sampler, Ranks(rank, 3))) for rank in range(3)]
    assert [[*first, *second, *third] for first, second, third in zip(*shares, strict=True)] == list(sampler)
    assert {len(part) for share in shares for part in share} == {2}


def test_work_of_which_nothing_comes_is_done_all_the_same() -> None:
    assert launch(time.sleep, 2, 0.0, cuda=False) is None


def test_ranks_leave_alone_what_each_has_for_itself(group: None) -> None:
    module = nn.ModuleDict({"criterion": nearfar.compose("adaface", **CONTEXT), "model": nn.BatchNorm1d(2)})
    assert sharded_names(module) == []
    shard_classes(module["criterion"], torch.device("cpu"))
    names = sharded_names(module)
    state = module["criterion"].state_dict()
    assert set(names) == {f"criterion.{name}" for name in state}
    assert isinstance(state["losses.adaface.weight"], DTensor)


def test_a_checkpoint_has_whole_tensors_and_gives_rows_back(group: None) -> None:
    criterion = nearfar.compose("arcface", **CONTEXT)
    before = criterion.losses["arcface"].weight.detach().clone()
    shard_classes(criterion, torch.device("cpu"))
    optimizer = torch.optim.AdamW(criterion.parameters(), lr=0.1)
    criterion(torch.randn(6, 4), torch.arange(6) % 5).backward()
    optimizer.step()
    kept = whole({"criterion": criterion.state_dict(), "optimizer": optimizer.state_dict()}, keep=True)
    weight, moment = kept["criterion"]["losses.arcface.weight"], kept["optimizer"]["state"][0]["exp_avg"]
    assert not isinstance(weight, DTensor)
    assert weight.shape == moment.shape == before.shape
    assert not torch.equal(weight, before)

    again = nearfar.compose("arcface", **CONTEXT)
    shard_classes(again, torch.device("cpu"))
    other = torch.optim.AdamW(again.parameters(), lr=0.1)
    again.load_state_dict(rows_of_tensors(again, kept["criterion"]))
    other.load_state_dict(rows_of_states(again.parameters(), kept["optimizer"]))
    (state,) = other.state.values()
    assert torch.equal(again.losses["arcface"].weight.full_tensor(), weight)
    assert isinstance(state["exp_avg"], DTensor)
    assert torch.equal(state["exp_avg"].full_tensor(), moment)


def test_what_is_not_kept_is_not_copied(group: None) -> None:
    criterion = nearfar.compose("arcface", **CONTEXT)
    shard_classes(criterion, torch.device("cpu"))
    assert whole(criterion.state_dict(), keep=False) == {"losses.arcface.weight": None}


def test_what_a_sharded_loss_learns_besides_is_alike_on_all_ranks_already(group: None) -> None:
    criterion = nearfar.compose("softmax + norm_softmax(learn_scale=True) + center(update='gradient')", **CONTEXT)
    shard_classes(criterion, torch.device("cpu"))
    names = [
        f"losses.{name}" for name in ("softmax.bias", "softmax.weight", "norm_softmax.scale", "norm_softmax.weight")
    ]
    assert sorted(sharded_names(criterion)) == sorted(names)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("arcface + triplet", ""),
        (
            "softmax + center(update='gradient')",
            "head.shard: every device keeps all that center learns",
        ),
    ],
)
def test_what_is_not_shared_out_is_told(group: None, recipe: str, told: str) -> None:
    criterion = nearfar.compose(recipe, **CONTEXT)
    assert told_whole(criterion) == ""
    shard_classes(criterion, torch.device("cpu"))
    assert told_whole(criterion) == told


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("triplet + contrastive", r"head\.shard shares class vectors out .*, and triplet \+ contrastive has none"),
        (
            "arcface + proxy_nca(distance=euclidean)",
            r"head\.shard is true, and proxy_nca cannot be shared out: .*distance",
        ),
    ],
)
def test_what_has_no_classes_to_share_out_is_refused(group: None, recipe: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        shard_classes(nearfar.compose(recipe, **CONTEXT), torch.device("cpu"))


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "join", classmethod(lambda cls, devices, *, cuda: cls(0, devices)))
    with pytest.raises(ConfigError, match="4 classes × 2 images cannot be divided among 3 devices"):
        prepared({"devices": 3, "batch": {"classes_per_batch": 4, "samples_per_class": 2}})


def test_it_is_refused_before_as_many_processes_are_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("nearfar.train.launch.launch", lambda *_, **__: pytest.fail("processes were started"))
    with pytest.raises(ConfigError, match="cannot be divided among 99 devices"):
        train({"devices": 99}, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_processes_there_are_are_those_that_were_asked_for(group: None) -> None:
    with pytest.raises(ConfigError, match="devices is 2, and 1 processes were started: leave devices out"):
        Ranks.join(2, cuda=False)
    assert Ranks.join(1, cuda=False) == Ranks()


def test_a_group_that_torchrun_asked_for_is_closed_before_python_ends() -> None:
    code = (
        "import torch.distributed as dist\nfrom nearfar.train.ranks import Ranks\n"
        "assert Ranks.join(1, cuda=False) == Ranks() == Ranks.join(1, cuda=False)\n"
        "close = dist.destroy_process_group\n"
        "dist.destroy_process_group = lambda: print('closed', close(), dist.is_initialized())"
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    by_torchrun = {"TORCHELASTIC_RUN_ID": "run", "RANK": "0", "WORLD_SIZE": "1"}
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | by_torchrun | where, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "closed None False\n"), done.stderr


@pytest.mark.parametrize("goes_well", [True, False])
def test_the_command_closes_a_group_once_its_run_went_well(goes_well: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: object, **kwargs: object) -> None:
        if not goes_well:
            raise ConfigError("no")

    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    monkeypatch.setattr("nearfar.train.run.start", start)
    left: list[bool] = []
    monkeypatch.setattr("nearfar.train.ranks.leave", lambda: left.append(True))
    with pytest.raises(SystemExit) as ended:
        cli.main(["train"])
    assert (ended.value.code, left) == ((0, [True]) if goes_well else (2, []))


def prepared(config: dict[str, object]) -> Job:
    return prepare(Config.of(config), None, Narrator(quiet=True))[0]


@pytest.mark.parametrize(("rank", "waits"), [("0", 0), ("1", 1)])
def test_under_torchrun_the_first_process_says_what_is_wrong_before_others_do(
    rank: str, waits: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("RANK", rank)
    slept: list[float] = []
    monkeypatch.setattr("nearfar.cli.time.sleep", lambda seconds: slept.append(seconds))
    with pytest.raises(SystemExit):
        cli.main(["recipe", "no_such_loss"])
    assert len(slept) == waits
    # What another has not said in that time is told after all.
    assert "no_such_loss" in capsys.readouterr().err
    warnings.showwarning("something", UserWarning, "a.py", 1)
    assert ("something" in capsys.readouterr().err) == (rank == "0")
