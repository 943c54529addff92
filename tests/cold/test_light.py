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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{file}"], "unknown key optimiser; did you mean optimizer?"),
        (["--resume", "{file}", "--set", "epohcs=3"], "unknown key epohcs; did you mean epochs?"),
        (["--criterion", "arcface(margn=1)"], "no parameter 'margn'; did you mean 'margin'?"),
        (["--criterion", "triplet(miner=semihrad)"], "semihard"),
        (["--criterion", "triplet(margin=0.2) +"], "cannot be read"),
        (["--criterion", "nothing_of_the_sort"], "nothing_of_the_sort"),
    ],
)
def test_what_is_misspelt_for_training_is_told_before_torch_is_loaded(arguments, message, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("criterion: sup_con\noptimiser:\n  lr: 1.0e-3\n", encoding="utf-8")
    args = ["train", *(argument.format(file=file) for argument in arguments)]
    code = (
        "import sys, nearfar.errors\nfrom nearfar.cli import cli\n"
        f"try:\n    cli.main(args={args!r}, standalone_mode=False)\n"
        f"except nearfar.errors.NearfarError as error:\n    assert {message!r} in str(error), error\n"
        f"else:\n    raise SystemExit('it began')\nassert not [m for m in {HEAVY!r} if m in sys.modules]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_help_lists_the_commands_without_importing_them():
    code = CLI.format(args=["--help"]) + "\nimport sys; assert 'nearfar.registry' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout
