"""What must not load torch, proved in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nearfar.cli import COMMANDS

HEAVY = ("torch", "numpy", "timm", "torchvision", "pytorch_metric_learning", "lightning")

CLI = "from nearfar.cli import cli; cli.main(args={args!r}, standalone_mode=False)"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import nearfar", id="import nearfar"),
        pytest.param("import nearfar; assert nearfar.list_losses('*face*')", id="list_losses"),
        pytest.param("import nearfar; assert nearfar.list_miners()", id="list_miners"),
        pytest.param("import nearfar; assert nearfar.list_plugins()", id="list_plugins"),
        pytest.param("from nearfar import LossSpec, Paper, hookimpl", id="what an entry module imports"),
        pytest.param(
            "import nearfar; assert not nearfar.Recipe.of('triplet(margin=0.3)', miner='semihard').check()",
            id="Recipe.check",
        ),
        pytest.param(CLI.format(args=["list"]), id="nearfar list"),
        pytest.param(CLI.format(args=["list", "--json"]), id="nearfar list --json"),
        pytest.param(CLI.format(args=["show", "arcface"]), id="nearfar show arcface"),
        pytest.param(CLI.format(args=["show", "pml.arc_face_loss"]), id="nearfar show pml.arc_face_loss"),
        pytest.param(CLI.format(args=["show", "recipes"]), id="nearfar show recipes"),
        pytest.param(CLI.format(args=["bench", "--help"]), id="nearfar bench --help"),
        pytest.param(CLI.format(args=["plot", "--help"]), id="nearfar plot --help"),
        pytest.param(CLI.format(args=["plugins"]), id="nearfar plugins"),
        pytest.param(CLI.format(args=["docs", "--help"]), id="nearfar docs --help"),
        pytest.param(CLI.format(args=["new-plugin", "--help"]), id="nearfar new-plugin --help"),
        pytest.param(CLI.format(args=["check-plugin", "--help"]), id="nearfar check-plugin --help"),
        pytest.param(CLI.format(args=["doctor", "--help"]), id="nearfar doctor --help"),
        pytest.param(CLI.format(args=["completion", "bash"]), id="nearfar completion bash"),
        pytest.param(CLI.format(args=["recipe", "check", "softmax + 0.003 * center"]), id="nearfar recipe check"),
        pytest.param(CLI.format(args=["recipe", "convert", "softmax", "--to", "yaml"]), id="nearfar recipe convert"),
    ],
)
def test_nothing_light_imports_anything_heavy(code):
    check = f"import sys; heavy = [m for m in {HEAVY!r} if m in sys.modules]; assert not heavy, heavy"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{check}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_help_lists_the_commands_without_importing_them():
    code = CLI.format(args=["--help"]) + "\nimport sys; assert 'nearfar.registry' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout
