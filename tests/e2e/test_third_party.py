"""A third party's plugin: it appears after an install, goes after an uninstall, and breaks alone."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "acme-losses"


class Environment:
    """A fresh virtual environment that sees the packages nearfar itself is installed among."""

    def __init__(self, folder: Path) -> None:
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
        self.python = folder / "bin" / "python"
        (self.site,) = (folder / "lib").glob("python*/site-packages")
        # addsitedir, because the .pth files in there count too: nearfar may be installed in editable mode.
        paths = [
            sysconfig.get_path("purelib"),
            *(p for p in site.getsitepackages() if p != sysconfig.get_path("purelib")),
        ]
        lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in paths)
        (self.site / "nearfar-itself.pth").write_text(lines, encoding="utf-8")
        self.folder = folder

    def nearfar(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, "-m", "nearfar", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=self.folder,
            env=os.environ | environment,
        )

    def ok(self, *arguments: str, **environment: str) -> str:
        done = self.nearfar(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def pip(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(self.python), *arguments],
            check=True,
            capture_output=True,
            timeout=300,
        )

    def status(self, namespace: str) -> tuple[str, str]:
        rows = json.loads(self.ok("plugins", "--json"))
        (row,) = [row for row in rows if row["namespace"] == namespace]
        assert {r["status"] for r in rows if r["namespace"] != namespace} == {"active"}
        return row["status"], row["reason"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The example's wheel, built as its author would."""
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "acme-losses"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def environment(tmp_path, wheel) -> Environment:
    environment = Environment(tmp_path / "venv")
    environment.pip("install", "--no-deps", "--no-index", "--quiet", str(wheel))
    return environment


def test_installed_listed_shown_composed_trained_and_gone_again(environment):
    listed = environment.ok("list", "acme.*")
    assert "log_ratio" in listed
    assert "nearest_impostor" in listed
    assert "acme-losses 1.0.0" in listed
    shown = environment.ok("show", "log_ratio")
    assert r"\log d_{ap}" in shown
    assert "margin = 0.5 in [0, inf]" in shown
    recipe = "log_ratio(margin=0.3, miner=nearest_impostor)"
    assert "it composes" in environment.ok("recipe", "check", recipe)
    code = f"import nearfar; print(nearfar.compose({recipe!r}).recipe.plugins['acme'])"
    composed = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, timeout=300)
    assert composed.stdout.strip() == "1.0.0", composed.stderr
    environment.ok("train", "--criterion", recipe, "--epochs", "1", "--set", "steps_per_epoch=2", "--output", "run")
    saved = (environment.folder / "run" / "recipe.yaml").read_text(encoding="utf-8")
    assert "acme: 1.0.0" in saved

    environment.pip("uninstall", "--yes", "acme-losses")
    assert "acme" not in environment.ok("list")
    gone = environment.nearfar("show", "acme.log_ratio")
    assert gone.returncode == 2
    assert "no plugin 'acme' is installed" in gone.stderr


def test_its_own_tests_pass(environment):
    done = subprocess.run(
        [environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=environment.folder,
    )
    assert done.returncode == 0, done.stdout


PLUGIN = "acme_losses/plugin.py"


@pytest.mark.parametrize(
    ("addition", "reason"),
    [
        pytest.param("import acme_no_such_module", "ModuleNotFoundError", id="ImportError"),
        pytest.param("raise SystemExit('license expired')", "called sys.exit(license expired)", id="SystemExit"),
        pytest.param("@hookimpl\ndef nearfar_reducers(registry): ...", "nearfar_reducers", id="wrong hook signature"),
        pytest.param("@hookimpl\ndef nearfar_samplers(): ...", "unknown hook 'nearfar_samplers'", id="unknown hook"),
    ],
)
def test_broken_it_is_reported_and_everything_else_works(environment, addition, reason):
    path = environment.site / PLUGIN
    path.write_text(path.read_text(encoding="utf-8") + "\n" + addition, encoding="utf-8")
    status, said = environment.status("acme")
    assert status == "failed"
    assert reason in said
    assert "arcface" in environment.ok("list")
    asked = environment.nearfar("show", "acme.log_ratio")
    assert asked.returncode == 2
    assert "the plugin 'acme' is failed" in asked.stderr
    strict = environment.nearfar("list", NEARFAR_STRICT="1")
    assert strict.returncode == 2
    assert "Traceback" not in asked.stderr + strict.stderr


def test_a_namespace_claimed_twice_is_reported_with_both_names(environment):
    info = environment.site / "rival_losses-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival-losses\nVersion: 2.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[nearfar]\nacme = acme_losses.plugin\n", encoding="utf-8")
    out = environment.ok("plugins")
    assert out.count("conflict") == 2
    assert "acme-losses 1.0.0 and rival-losses 2.0" in out
    assert "arcface" in environment.ok("list")
    assert "log_ratio" in environment.ok("list", NEARFAR_BLOCK="rival-losses")


def test_a_nearfar_from_the_future_is_asked_for(environment):
    (metadata,) = environment.site.glob("acme_losses-*.dist-info/METADATA")
    text = metadata.read_text(encoding="utf-8").replace("nearfar>=0.1", "nearfar>=42")
    metadata.write_text(text, encoding="utf-8")
    status, said = environment.status("acme")
    assert status == "incompatible"
    assert "requires nearfar>=42, but nearfar 0.1.0 is installed" in said
