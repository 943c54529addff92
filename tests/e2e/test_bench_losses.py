"""``nearfar bench losses`` on a folder of images: resumed, shared, reproduced, refused."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="optuna, of nearfar[bench], is not installed")

import nearfar.bench.cell
from nearfar.bench import Comparison, compare
from nearfar.bench.folder import ComparisonFolder
from nearfar.cli import main
from nearfar.errors import Diverged
from nearfar.train.signals import Terminated
from nearfar.train.table import METRICS
from photos import noisy_photos

SMALL = {
    "criteria": ["softmax", "triplet"],
    "trials": 2,
    "repeats": 2,
    "folds": 2,
    "train": {
        "epochs": 1,
        "steps_per_epoch": 4,
        "checkpoint_every": 2,
        "model": {"image_size": 32, "embedding_size": 16},
        "batch": {"classes_per_batch": 4, "samples_per_class": 2},
        "data": {"workers": 0},
    },
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty classes of three noisy images."""
    return noisy_photos(tmp_path_factory.mktemp("photos"), classes=20, views=3, noise=0.5)


@pytest.fixture(scope="module")
def small(photos: Path) -> Comparison:
    return Comparison.of(SMALL, {"train": {"data": {"source": str(photos)}}})


@pytest.fixture(scope="module")
def whole(small: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison that nothing came between."""
    path = tmp_path_factory.mktemp("whole") / "out"
    compare(small, path)
    return path


def records(path: Path) -> dict[str, Any]:
    """Every trial and every repeat, without what a clock says."""

    def timeless(data: Any) -> Any:
        if isinstance(data, dict):
            return {key: timeless(value) for key, value in data.items() if key != "seconds"}
        return [timeless(value) for value in data] if isinstance(data, list) else data

    files = sorted(path.glob("trials/*/*.json")) + sorted(path.glob("cells/*/*.json"))
    return {str(file.relative_to(path)): timeless(json.loads(file.read_text())) for file in files}


def test_every_criterion_has_its_trials_and_its_repeats(whole: Path) -> None:
    assert sorted(records(whole)) == [
        *(f"cells/{name}/{seed}.json" for name in ("softmax", "triplet") for seed in (1, 2)),
        *(f"trials/{name}/{number:03}.json" for name in ("softmax", "triplet") for number in (0, 1)),
    ]
    assert not (whole / "work").exists()
    assert (whole / "figure.svg").exists()


def test_repeats_have_the_values_of_the_best_trial(whole: Path) -> None:
    found = records(whole)
    for name in ("softmax", "triplet"):
        trials = [found[f"trials/{name}/{number:03}.json"] for number in (0, 1)]
        best = max(trials, key=lambda trial: trial["validation"]["map@r"])
        assert [found[f"cells/{name}/{seed}.json"]["values"] for seed in (1, 2)] == [best["values"]] * 2
        assert trials[0]["values"] != trials[1]["values"]


def test_the_validation_of_a_trial_is_the_mean_of_its_folds(whole: Path) -> None:
    for record in records(whole).values():
        for metric in METRICS:
            folds = [training["validation"][metric] for training in record["trainings"]]
            assert len(folds) == 2
            assert record["validation"][metric] == pytest.approx(sum(folds) / 2, rel=1e-12)


def test_the_table_has_what_the_cells_have(whole: Path) -> None:
    results, found = json.loads((whole / "results.json").read_text()), records(whole)
    for row in results["rows"]:
        for ensemble in ("separated", "concatenated"):
            values = [found[f"cells/{row['name']}/{seed}.json"]["test"][ensemble]["map@r"] for seed in (1, 2)]
            assert row["scores"][ensemble]["map@r"]["mean"] == pytest.approx(sum(values) / 2, rel=1e-12)
            half = abs(values[0] - values[1]) / 2 * 12.7062  # Student's for one degree of freedom
            assert row["scores"][ensemble]["map@r"]["half"] == pytest.approx(half, rel=1e-5)
    assert results["baseline"] == "softmax"
    table = (whole / "table.md").read_text()
    assert "| softmax " in table
    assert "paired t-test" in table


def test_the_table_of_one_repeat_and_one_trial_claims_no_interval_no_test_and_no_search(
    small: Comparison, tmp_path: Path
) -> None:
    once = {"criteria": ["softmax"], "trials": 1, "repeats": 1, "train": {"validation": {"every": 1}}}
    compare(Comparison.of(small.to_dict(), once), tmp_path / "out")
    table = (tmp_path / "out" / "table.md").read_text()
    assert "# 1 criterion on " in table
    assert "Test classes, per cent; of one repeat.\n" in table
    assert "for 1 epoch, whatever the criterion. Every epoch and at the end" in table
    assert "One repeat has no interval and no test" in table
    assert "nothing was searched" in table
    assert "Student" not in table
    assert "Optuna's" not in table


class Killed(BaseException):
    """What a signal that nobody can answer does, as far as files and the storage know."""


@pytest.mark.parametrize("after", [2, 9])
def test_a_comparison_that_is_killed_goes_on_to_the_same(
    small: Comparison, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    trained, left = nearfar.bench.cell._train, [after]

    def train(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return trained(*arguments)

    monkeypatch.setattr(nearfar.bench.cell, "_train", train)
    with pytest.raises(Killed):
        compare(small, tmp_path / "out")
    monkeypatch.setattr(nearfar.bench.cell, "_train", trained)
    compare(small, tmp_path / "out")
    assert records(tmp_path / "out") == records(whole)


@pytest.mark.parametrize("how", ["killed", "terminated"])
def test_a_training_that_is_stopped_between_two_steps_goes_on_to_the_same(
    small: Comparison, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    from nearfar.train.checkpoint import Checkpoint

    write, left = Checkpoint.write, [5]

    def written(self: Checkpoint, path: Path) -> None:
        write(self, path)
        left[0] -= 1
        if left[0]:
            return
        # In the middle of the third training, of which each writes two.
        if how == "killed":
            raise Killed
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoint, "write", written)
    with pytest.raises(Killed if how == "killed" else Terminated):
        compare(small, tmp_path / "out")
    assert list((tmp_path / "out" / "work").glob("*/*/checkpoint.pt"))
    compare(small, tmp_path / "out")
    assert records(tmp_path / "out") == records(whole)


def started(*words: object) -> subprocess.Popen[str]:
    code = "from nearfar.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "bench", "losses", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_processes_share_the_work_and_one_that_is_killed_is_missed_by_none(
    small: Comparison, whole: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "comparison.yaml", tmp_path / "out"
    file.write_text(small.to_yaml(), encoding="utf-8")
    storage = f"sqlite:///{tmp_path}/shared.db"
    both = [started(file, "-o", out, "--storage", storage) for _ in range(2)]
    deadline = time.monotonic() + 200
    while not list((out / "work").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    both[0].send_signal(signal.SIGKILL)
    both[0].communicate()  # until then the system has it among those that run
    said, _ = both[1].communicate(timeout=300)
    assert both[1].returncode == 0, said
    assert records(out) == records(whole)


def test_the_command_of_a_repeat_does_it_again_bit_for_bit(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = records(whole)["cells/triplet/2.json"]
    with pytest.raises(SystemExit) as left:
        main([*shlex.split(cell["command"])[1:], "--set", "data.workers=0", "-o", str(tmp_path / "again")])
    assert left.value.code == 0
    (again,) = records(tmp_path / "again").values()
    assert again["test"] == cell["test"]
    assert again["validation"] == cell["validation"]
    assert again["seed"] == cell["seed"]


def test_the_command_of_a_training_does_it_again_bit_for_bit(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = records(whole)["cells/softmax/1.json"]
    tests = []
    for number, training in enumerate(cell["trainings"]):
        path = tmp_path / f"run{number}"
        with pytest.raises(SystemExit) as left:
            main([*shlex.split(training["command"])[1:], "--set", "data.workers=0", "-o", str(path)])
        assert left.value.code == 0
        metrics = json.loads((path / "metrics.json").read_text())
        assert {name: metrics["validation"][name] for name in METRICS} == training["validation"]
        tests.append(metrics["test"]["trained"])
    for name in METRICS:  # the mean of the table of each run
        assert cell["test"]["separated"][name] == sum(one[name] for one in tests) / len(tests)


def test_more_repeats_and_criteria_are_added_and_what_is_there_stays(whole: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    before = {file: file.stat().st_mtime_ns for file in out.glob("cells/*/*.json")}
    more = Comparison.of(
        SMALL,
        {"criteria": ["softmax", "triplet", "sup_con"], "repeats": 3},
        {"train": {"data": {"source": str(photos)}}},
    )
    results = compare(more, out, only=["softmax", "sup_con"])
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert [len(row.commands) for row in results.rows] == [3, 2, 3]
    assert results.rows[1].trouble == "2 of 3 repeats are done"
    assert "2 of 3 repeats are done" in (out / "table.md").read_text()


def test_trials_that_fail_are_counted_and_told(small: Comparison, photos: Path, tmp_path: Path) -> None:
    wild = {"lr": {"criterion": "softmax", "search": {"optimizer.lr": [1e18, 1e19]}}, "triplet": "triplet"}
    comparison = Comparison.of({**SMALL, "criteria": wild, "repeats": 1}, {"train": {"data": {"source": str(photos)}}})
    said: list[str] = []
    results = compare(comparison, tmp_path / "out", tell=said.append)
    row = results.rows[0]
    assert (row.trials, row.failed, row.scores) == (2, 2, {})
    assert row.trouble.startswith("none of its 2 trials came to anything: ")
    assert "lower optimizer.lr" in row.trouble
    assert any(line.startswith("lr, trial 1 of 2 failed: ") for line in said)
    assert results.rows[1].scores
    assert ComparisonFolder(tmp_path / "out").trial("lr", 0).exists()
    assert issubclass(Diverged, Exception)


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as left:
            main(["bench", "losses", *map(str, words)])
        assert left.value.code == 2
        return capsys.readouterr().err

    return run


def test_what_is_wrong_is_said_before_anything_is_done(fails: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "there are no criteria to compare: give --criterion RECIPE" in fails("-o", out)
    assert "say with --output which folder the results go to" in fails("--criterion", "softmax")
    assert "no loss is called 'sofmax'; did you mean 'softmax'" in fails("--criterion", "sofmax", "-o", out)
    wrong = fails("--criterion", "softmax", "--criterion", "giou", "-o", out)
    assert "criteria.giou: criterion giou wants" in wrong
    assert "there is no data set 'nowhere'" in fails("--criterion", "softmax", "--data", "nowhere", "-o", out)
    assert "there is no configuration file" in fails(tmp_path / "not.yaml", "-o", out)
    assert "unknown key optimizer.lrr" in fails("--criterion", "softmax", "--set", "optimizer.lrr=1", "-o", out)
    assert "train.seed is not for" in fails("--criterion", "softmax", "--set", "seed=1", "-o", out)
    assert "no criterion of this comparison is called" in fails("--criterion", "softmax", "--only", "b", "-o", out)
    assert "leave devices out" in fails("--criterion", "softmax", "--set", "devices=2", "-o", out)
    assert not out.exists()


def test_without_optuna_it_is_said_what_to_install(fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    for name in [name for name in sys.modules if name == "nearfar.bench" or name.startswith("nearfar.bench.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "optuna" else find(name, *more)
    )
    message = "a comparison of criteria needs an optional part of nearfar: pip install 'nearfar[bench]'"
    assert message in fails("--criterion", "softmax", "-o", "out")


def test_a_plan_says_what_would_be_searched(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["bench", "losses", "--criterion", "sup_con", "--trials", "3", "--repeats", "2", "--plan"])
    assert left.value.code == 0
    assert capsys.readouterr().out == (
        "sup_con: sup_con; searched: temperature 0.025 to 0.4, log\n"
        "1 criterion on emoji, 3 trials and 2 repeats each, 4 folds: 20 trainings of 40 epochs with test_resnet\n"
    )


def test_of_one_trial_a_plan_says_that_it_is_the_criterion_as_it_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(
            ["bench", "losses", "--criterion", "sup_con", "--trials", "1", "--repeats", "1", "--epochs", "1", "--plan"]
        )
    assert capsys.readouterr().out == (
        "sup_con: sup_con; as it is written\n"
        "1 criterion on emoji, 1 trial and 1 repeat each, 4 folds: 8 trainings of 1 epoch with test_resnet\n"
    )


def test_every_image_is_read_before_the_first_training_and_one_that_cannot_be_is_named(
    fails: Any, photos: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(photos, broken)
    (broken / "class7" / "1.png").write_bytes(b"no image")
    out = tmp_path / "out"
    words = ["--criterion", "softmax", "--data", broken, "--set", "batch.classes_per_batch=2", "-o", out]
    assert "class7/1.png" in fails(*words)
    assert not out.exists()
