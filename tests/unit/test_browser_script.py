"""What ``scripts/browser`` does where it can install nothing: it says why, and fails nobody."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "browser"


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        ({}, "there is no apt-get; install one by hand, or name one in CHROME_BIN"),
        ({"apt-get": "exit 1", "id": "echo 1000"}, "only root may install"),
        ({"apt-get": "echo read; echo E: it is locked >&2; exit 1", "id": "echo 0"}, "apt-get failed: E: it is locked"),
        ({"apt-get": "exit 0", "id": "echo 0"}, "what apt-get installed is none"),
    ],
)
def test_a_browser_that_cannot_be_had_is_told_and_no_failure(
    tmp_path: Path, programs: dict[str, str], told: str
) -> None:
    for name in ("bash", "sh", "env", "dirname", "python3", "timeout"):
        real = shutil.which(name)
        assert real is not None
        (tmp_path / name).symlink_to(real)
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!{tmp_path}/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    ended = subprocess.run([SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"[browser] no Chromium, so tests of pages will skip: {told}" in ended.stdout


def test_a_browser_that_is_there_is_left_alone(tmp_path: Path) -> None:
    browser = tmp_path / "mine"
    browser.write_text("")
    browser.chmod(0o755)
    found = shutil.which("bash")
    assert found is not None
    said = subprocess.run(
        [SCRIPT], env={"PATH": str(Path(found).parent), "CHROME_BIN": str(browser)}, capture_output=True, check=True
    )
    assert said.stdout == b""
