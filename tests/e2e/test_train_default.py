"""What a newcomer's first command does: ``nearfar train`` without arguments."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

NEARFAR = [sys.executable, "-c", "from nearfar.cli import main; main()"]


def test_it_learns_emoji_it_has_never_seen_in_under_four_minutes(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([*NEARFAR, "train"], cwd=tmp_path, capture_output=True, text=True, timeout=580)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    metrics = json.loads((tmp_path / "runs" / "latest" / "metrics.json").read_text())
    recall = {row: values["recall@1"] for row, values in metrics["test"].items()}
    assert recall["trained"] >= 1.2 * recall["raw"]
    assert recall["trained"] >= 1.5 * recall["untrained"]
    # Processor time, which other work on the machine hardly changes: under four minutes of it even one core is enough.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 240

    for row, name in (("raw", "raw pixels"), ("untrained", "untrained network"), ("trained", "trained network")):
        (line,) = (line for line in ended.stdout.splitlines() if line.startswith(name))
        shown = [f"{100 * metrics['test'][row][metric]:.1f}" for metric in ("recall@1", "recall@5", "map@r")]
        assert line.split()[-4:-1] == shown

    again = subprocess.run(
        [*NEARFAR, "evaluate", "runs/latest", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert json.loads(again.stdout)["test"] == metrics["test"]
