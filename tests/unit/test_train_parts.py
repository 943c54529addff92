"""The parts of a run that need no run: schedules, parameter groups, spread, logs, folders, the table."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import nearfar
from nearfar.errors import CheckpointError, CollapseWarning, ConfigError, NearfarWarning
from nearfar.nn import Criterion
from nearfar.nn.criterion import CriterionTerm
from nearfar.train.checkpoint import Checkpoint, restore
from nearfar.train.config import Optimizer, Schedule
from nearfar.train.folder import RunFolder
from nearfar.train.logs import CsvTable
from nearfar.train.optimizer import make_optimizer, parameter_groups, told_rates
from nearfar.train.schedule import factor
from nearfar.train.spread import CollapseWatch, spread
from nearfar.train.table import render, told_no_better

# ---- schedules


def test_the_warm_up_rises_linearly_and_reaches_one() -> None:
    rates = [factor(Schedule(warmup=0.1), step, 100) for step in range(10)]
    assert rates == pytest.approx([0.1 * (step + 1) for step in range(10)], rel=1e-12)


def test_the_cosine_is_half_way_down_half_way_through() -> None:
    schedule = Schedule(warmup=0.2)
    assert factor(schedule, 20, 100) == 1
    assert factor(schedule, 60, 100) == pytest.approx(0.5, rel=1e-12)
    assert 0 < factor(schedule, 99, 100) < 0.001


def test_steps_divide_at_their_milestones() -> None:
    schedule = Schedule(name="step", warmup=0, milestones=(0.5, 0.75), gamma=0.1)
    assert [factor(schedule, step, 100) for step in (0, 49, 50, 74, 75, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01], rel=1e-12
    )


def test_a_constant_stays() -> None:
    falling = Schedule(name="linear", warmup=0.2)
    assert [factor(falling, step, 10) for step in range(10)] == pytest.approx(
        [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    )
    assert {factor(Schedule(name="constant", warmup=0), step, 7) for step in range(7)} == {1.0}


# ---- parameter groups


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 2))
        self.frozen = nn.Parameter(torch.zeros(4, 4), requires_grad=False)


def criterion_of(**rates: float) -> Criterion:
    """A criterion with a term of each name, which asks for so many times the model's learning rate."""
    return Criterion(
        [CriterionTerm(name, Weights(), ("embeddings", "labels"), learning_rate=rate) for name, rate in rates.items()]
    )


def test_the_criterion_learns_at_its_own_rate_and_vectors_are_not_decayed() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    groups = parameter_groups(model, criterion_of(it=1), Optimizer(lr=0.1, criterion_lr=0.5, weight_decay=0.2))
    assert [(g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        ("model", 0.1, 0.2, 1),
        ("model, no decay", 0.1, 0.0, 3),
        ("criterion/it", 0.5, 0.2, 1),
    ]


def test_without_a_rate_of_its_own_each_term_has_what_it_asks_for() -> None:
    groups = parameter_groups(nn.Linear(1, 1), criterion_of(plain=1, proxies=100, slow=0.5), Optimizer(lr=5e-5))
    assert {g["name"]: g["lr"] for g in groups} == {
        "model": 5e-5,
        "model, no decay": 5e-5,
        "criterion/plain": 5e-5,
        "criterion/proxies": pytest.approx(5e-3),
        "criterion/slow": pytest.approx(2.5e-5),
    }


@pytest.mark.parametrize(("lr", "expected"), [(1e-4, 1e-2), (1e-3, 1e-2), (5e-2, 5e-2)])
def test_proxies_outrun_a_network_no_further_than_published_rates(lr: float, expected: float) -> None:
    groups = parameter_groups(nn.Linear(1, 1), criterion_of(proxies=100), Optimizer(lr=lr))
    assert groups[-1]["lr"] == pytest.approx(expected)


def test_a_rate_of_the_criterions_wins_over_what_terms_ask_for() -> None:
    criterion, config = criterion_of(plain=1, proxies=10), Optimizer(lr=0.3, criterion_lr=0.6)
    rates = {g["name"]: g["lr"] for g in parameter_groups(nn.Linear(1, 1), criterion, config)}
    assert (rates["criterion/plain"], rates["criterion/proxies"]) == (0.6, 0.6)
    assert "plain learns at 0.6, 2 times optimizer.lr" in told_rates(criterion, config)


def test_another_rate_than_the_networks_is_told_and_the_same_is_not() -> None:
    config = Optimizer(lr=0.001)
    assert told_rates(criterion_of(plain=1), config) == ""
    assert told_rates(criterion_of(plain=1, proxies=10), config) == (
        "proxies learns at 0.01, 10 times optimizer.lr (optimizer.criterion_lr)"
    )


def test_a_tensor_that_two_terms_share_is_learned_once() -> None:
    criterion = criterion_of(one=1, two=10)
    criterion.losses["two"].weight = criterion.losses["one"].weight
    groups = parameter_groups(nn.Linear(1, 1), criterion, Optimizer())
    assert [g["name"] for g in groups] == ["model", "model, no decay", "criterion/one"]


def test_a_loss_within_another_says_how_fast_its_proxies_learn() -> None:
    criterion = nearfar.compose("softmax + proxy_anchor", num_classes=4, embedding_size=8)
    assert criterion.learning_rates == {"softmax": 1.0, "proxy_anchor": 100.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearfarWarning)  # of the defects of theirs
        wrapped = nearfar.compose("pml.multiple_losses([pml.soft_triple_loss])", num_classes=4, embedding_size=8)
    assert wrapped.learning_rates == {"multiple_losses": 100.0}


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_optimizer_is_the_one_named(name: str, kind: type) -> None:
    config = Optimizer(name=name, momentum=0.0)  # type: ignore[arg-type]
    assert type(make_optimizer(parameter_groups(nn.Linear(1, 1), criterion_of(it=1), config), config)) is kind


# ---- spread


def test_the_spread_is_zero_at_a_point_and_one_where_embeddings_cancel() -> None:
    point = torch.tensor([[3.0, 4.0]]).expand(5, 2) * torch.rand(5, 1)
    assert float(spread(point)) < 1e-7
    assert float(spread(torch.cat([torch.eye(3), -torch.eye(3)]))) == pytest.approx(1, rel=1e-12)


def test_the_square_of_the_spread_is_one_minus_the_mean_cosine() -> None:
    embeddings = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in embeddings.tolist()]
    cosines = [sum(a * b for a, b in zip(one, other, strict=True)) for one in unit for other in unit]
    assert float(spread(embeddings)) ** 2 == pytest.approx(1 - sum(cosines) / 36, rel=1e-12)


def test_a_collapse_is_told_once_and_not_before_the_first_steps() -> None:
    watch = CollapseWatch(from_step=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.see(0.001, 9)
        watch.see(0.5, 11)
    with pytest.warns(CollapseWarning, match="after step 12 their spread is 0.001"):
        watch.see(0.001, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.see(0.001, 13)


# ---- logs


def test_a_log_that_goes_on_has_no_row_twice_and_none_of_lost_work(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    table = CsvTable(path)
    for step in (10, 20, 30):
        table.add(step, {"loss": 1 / step})
    again = CsvTable(path, after=20)
    again.add(30, {"loss": 0.25})
    assert path.read_text().split() == ["step,loss", "10,0.1", "20,0.05", "30,0.25"]


def test_a_row_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("step,loss,lr\r\n10,1.0,0.5\r\n20,0.")
    CsvTable(path, after=20)
    assert path.read_text().split() == ["step,loss,lr", "10,1.0,0.5"]


def test_a_new_column_is_empty_in_earlier_rows(tmp_path: Path) -> None:
    table = CsvTable(tmp_path / "x.csv")
    table.add(1, {"a": 1.0})
    table.add(2, {"a": 2.0, "b": 3})
    assert (tmp_path / "x.csv").read_text().split() == ["step,a,b", "1,1.0,", "2,2.0,3"]


# ---- folders


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", "sup_con").checkpoint.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"holds a run already.*--resume .*--output"):
        RunFolder.create(tmp_path / "run", "sup_con")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written: Not a directory; choose another with --output"):
        RunFolder.create(tmp_path / "file" / "run", "sup_con")


def test_runs_get_names_of_their_own_and_latest_is_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [RunFolder.create(None, "0.5 * triplet(margin=0.2)") for _ in range(3)]
    assert len({folder.path for folder in folders}) == 3
    assert all("-triplet" in folder.path.name for folder in folders)
    for folder in folders[:2]:
        folder.config.write_text("")
        folder.point_latest()
    assert RunFolder.open("runs/latest").path == folders[1].path


@pytest.mark.parametrize("output", [None, "mine"])
def test_two_runs_that_begin_at_once_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    others: list[Path] = []
    make = Path.mkdir

    def mkdir(path: Path, *args: object, **kwargs: object) -> None:
        if not others and (path.parent.name == "runs" or path.name == "mine"):
            make(path)
            others.append(path)
        make(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir)
    if output is None:
        assert RunFolder.create(None, "sup_con").path == others[0].with_name(f"{others[0].name}-2")
    else:
        with pytest.raises(ConfigError, match="mine cannot be written: File exists; choose another"):
            RunFolder.create(output, "sup_con")


def test_a_folder_that_another_process_trains_in_is_left_alone(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom nearfar.train.folder import RunFolder\n"
        "folder = RunFolder.create(sys.argv[1], 'sup_con')\n"
        "with folder.held():\n    folder.config.write_text('')\n    print('held', flush=True)\n    time.sleep(240)"
    )
    mined = tmp_path / "run" / "hardest-1.safetensors"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        mined.touch()
        with pytest.raises(ConfigError, match=r"another process is training in .*run, and two would overwrite"):
            RunFolder.create(tmp_path / "run", "sup_con")
        with pytest.raises(ConfigError, match="another process"), RunFolder.open(tmp_path / "run").held():
            pass
        assert mined.exists()
        process.kill()
    RunFolder.create(tmp_path / "run", "sup_con")
    assert not mined.exists()


def test_a_folder_on_a_disk_without_locks_can_be_trained_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with RunFolder.create(tmp_path / "run", "sup_con").held():
        pass


def test_latest_may_be_a_file_where_links_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = RunFolder.create(tmp_path / "runs" / "one", "sup_con")
    folder.config.write_text("")
    folder.point_latest()
    assert (tmp_path / "runs" / "latest").read_text() == "one"
    assert RunFolder.open(tmp_path / "runs" / "latest").path == folder.path


def test_no_latest_is_left_in_folders_of_other_names(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "one", "sup_con").point_latest()
    assert not (tmp_path / "latest").exists()


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_what_is_no_run_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=path):
        RunFolder.open(tmp_path / path)


# ---- checkpoints


def checkpoint(**changed: object) -> Checkpoint:
    values: dict[str, object] = {k: {} for k in ("model", "criterion", "optimizer", "scaler", "best")}
    return Checkpoint(**{"step": 3, "steps": 9, "seconds": 1.5, "data": "x", "losses": [0.5], **values, **changed})  # type: ignore[arg-type]


def test_a_checkpoint_reads_as_it_was_written(tmp_path: Path) -> None:
    written = checkpoint(model={"w": torch.arange(3.0)}, best={"score": 0.1, "step": 2, "metrics": {"map@r": 0.1}})
    written.write(tmp_path / "checkpoint.pt")
    read = Checkpoint.read(tmp_path / "checkpoint.pt")
    assert torch.equal(read.model["w"], torch.arange(3.0))
    assert (read.step, read.steps, read.seconds, read.best, read.data) == (3, 9, 1.5, written.best, "x")
    assert read.losses == [0.5]


def test_a_damaged_or_foreign_checkpoint_is_told(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(CheckpointError, match=r"has no checkpoint\.pt"):
        Checkpoint.read(path)
    checkpoint(model={"w": torch.zeros(1000)}).write(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint.read(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of a run"):
        Checkpoint.read(path)


def test_a_checkpoint_of_another_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"of another model than the configuration describes: size mismatch"):
        restore(nn.Linear(2, 3), nn.Linear(2, 4).state_dict(), what="model", path=tmp_path / "checkpoint.pt")


# ---- the table


def test_the_table_has_three_rows_of_four_metrics_in_per_cent() -> None:
    values = {"recall@1": 0.25, "recall@5": 0.5, "map@r": 0.125, "r_precision": 1.0}
    text = render({"raw": values, "untrained": values, "trained": values}, "title")
    assert text.splitlines()[0] == "title"
    assert text.splitlines()[1].split() == ["recall@1", "recall@5", "MAP@R", "R-precision"]
    for line, name in zip(text.splitlines()[2:], ("raw pixels", "untrained network", "trained network"), strict=True):
        assert line.startswith(name)
        assert line.split()[-4:] == ["25.0", "50.0", "12.5", "100.0"]


@pytest.mark.parametrize(
    ("raw", "untrained", "trained", "best", "validations", "said"),
    [
        (0.2, 0.1, 0.21, 4, 10, ""),
        (0.2, 0.1, 0.15, 40, 10, "than raw pixels (MAP@R 15.0 against 20.0): it validated best at its last step "),
        (0.2, 0.1, 0.20, 4, 10, "than raw pixels (MAP@R 20.0 against 20.0): it validated best after 4 of 40 steps"),
        (0.1, 0.3, 0.2, 4, 10, "no better than an untrained one (MAP@R 20.0 against 30.0): "),
        (0.2, 0.1, 0.15, 40, 1, "it was validated once, so nothing says whether it was still getting better"),
        (0.2, 1.0, 1.0, 4, 10, "an untrained one (MAP@R 100.0 against 100.0): there is nothing more to be found"),
    ],
)
def test_a_training_that_came_to_nothing_is_told_with_what_to_look_at(
    raw, untrained, trained, best, validations, said
) -> None:
    rows = {"raw": {"map@r": raw}, "untrained": {"map@r": untrained}, "trained": {"map@r": trained}}
    found = told_no_better(rows, "map@r", best=best, steps=40, validations=validations)
    assert (said in found) if said else (found == "")
