"""``nearfar check-plugin``: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

import nearfar
from nearfar.cli import cli, main
from nearfar.registry import default_registry

PLUGIN = """
from nearfar import LossSpec, hookimpl

@hookimpl
def nearfar_losses():
    return [LossSpec(name="mean_norm", target="acme_parts:MeanNorm", summary="The mean of the lengths.", uses_norm=True
        {more})]
"""

PARTS = """
import sys
from nearfar.nn import EmbeddingLoss
from nearfar.nn.terms import element_terms


class MeanNorm(EmbeddingLoss):
    def default_distance(self):
        return None

    def terms(self, batch):
        {extra}
        return element_terms(batch.embeddings.square().sum(1))
"""


@pytest.fixture
def acme(install, tmp_path, monkeypatch):
    """Lay a plugin ``acme`` on the path, of one loss whose ``terms`` begin with ``extra``."""
    monkeypatch.chdir(tmp_path)

    def lay(extra="", more=""):
        install("acme-losses", "acme", PLUGIN.replace("{more}", more), requires="nearfar>=0.1")
        (tmp_path / "site" / "acme_parts.py").write_text(PARTS.replace("{extra}", extra or "pass"), encoding="utf-8")
        sys.modules.pop("acme_parts", None)
        default_registry.cache_clear()

    yield lay
    sys.modules.pop("acme_parts", None)
    default_registry.cache_clear()


def check(*arguments):
    """What it printed and the code it ended with; the laws that are cheap, unless others are asked for."""
    arguments = arguments if "-k" in arguments else (*arguments, "-k", "runs")
    return CliRunner().invoke(cli, ["check-plugin", *arguments], catch_exceptions=False)


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["check-plugin", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return caught.value.code, out, err


def test_what_holds_ends_with_0_and_a_table(acme):
    acme()
    done = check("acme")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].split() == ["part", "passed", "failed", "skipped", "expected"]
    assert ["acme.mean_norm", "1", "·", "·", "·"] in [line.split() for line in lines]
    assert lines[-1] == "acme (acme-losses 1.0): 1 passed of 1 checks"


def test_what_does_not_hold_ends_with_1_the_law_and_a_script(acme):
    acme("batch.embeddings[7]")
    done = check("acme", "-k", "gradient")
    assert done.exit_code == 1
    assert "FAILED acme.mean_norm::gradient\nIndexError: index 7 is out of bounds" in done.output
    assert "The law: The gradient is that of the value" in done.output
    assert "# nearfar check-plugin acme -k acme.mean_norm::gradient\n" in done.output
    assert done.output.splitlines()[-1].startswith("acme (acme-losses 1.0): ")
    assert " 1 failed" in done.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("pattern", "said"), [("no_such_law", "no check has 'no_such_law' in its name"), ("acme.x::*", "no check has")]
)
def test_no_check_at_all_is_a_failure(acme, pattern, said):
    acme()
    done = check("acme", "-k", pattern)
    assert done.exit_code == 1
    assert said in done.output


def test_laws_that_all_say_nothing_are_a_failure(acme):
    acme()
    done = check("acme", "-k", "memory")
    assert done.exit_code == 1
    assert "1 skipped of 1 checks" in done.output
    assert "nothing was checked: every law was skipped" in done.output


def test_a_name_in_full_chooses_that_check_alone(acme):
    acme()
    assert "1 passed of 1 checks" in check("acme", "-k", "acme.mean_norm::gradient").output
    more = json.loads(check("pair", "-k", "triplet::gradient", "--json").output)
    assert len(more["checks"]) > 1
    (only,) = json.loads(check("pair", "-k", "pair.triplet::gradient", "--json").output)["checks"]
    assert only["id"] == "pair.triplet::gradient"


def test_v_lists_what_passed_and_why_the_rest_was_skipped_and_the_slowest(acme):
    acme()
    out = check("acme", "-v", "-k", "runs").output + check("acme", "-v", "-k", "memory").output
    assert "passed   acme.mean_norm::runs" in out
    assert "skipped  acme.mean_norm::memory  (the spec does not say its memory; it grows with the power 1.0)" in out
    assert "slowest\n" in out


def test_as_json_it_is_nothing_else(acme):
    acme("print('hello'); sys.stderr.write('there')")
    done = check("acme", "--json")
    data = json.loads(done.stdout)
    assert done.stderr == ""
    assert (data["passed"], data["failed"], data["plugin"]) == (1, 0, "acme")
    assert data["checks"][0]["id"] == "acme.mean_norm::runs"


def test_as_json_a_failure_ends_with_1_too(acme):
    acme("1 / 0")
    done = check("acme", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["failed"] == 1


def test_junit_writes_the_file_over_an_older_one(acme, tmp_path):
    acme("1 / 0")
    file = tmp_path / "report.xml"
    file.write_text("old", encoding="utf-8")
    assert check("acme", "--junit", str(file)).exit_code == 1
    suite = ElementTree.fromstring(file.read_bytes())
    assert suite.get("failures") == "1"
    assert suite[0].get("classname") == "acme.mean_norm"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (".", "'.' is a directory"),
        ("absent/report.xml", "there is no folder 'absent'"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_checked(acme, capsys, file, message):
    acme("raise KeyboardInterrupt")
    code, out, err = fails(capsys, "acme", "--junit", file)
    assert code == 2
    assert message in err
    assert out == ""


def test_badge_is_the_last_line(acme):
    acme()
    done = CliRunner().invoke(cli, ["check-plugin", "acme", "--badge"], catch_exceptions=False)
    assert done.output.splitlines()[-1].startswith(f"![nearfar {nearfar.__version__} laws: ")


@pytest.mark.parametrize(("option", "message"), [(("-k", "runs"), "leave out -k"), (("--json",), "leave out --json")])
def test_a_badge_tells_of_all_checks(capsys, option, message):
    code, _, err = fails(capsys, "pair", "--badge", *option)
    assert code == 2
    assert message in err


def test_the_seed_is_passed_on_and_told(acme):
    acme("batch.embeddings[7]")
    out = check("acme", "-k", "acme.mean_norm::gradient", "--seed", "9").output
    assert "with nearfar.testing.seeded(9):" in out
    assert "-k acme.mean_norm::gradient --seed 9\n" in out
    again = check("acme", "-k", "acme.mean_norm::gradient", "--seed", "9").output
    assert again == out


def test_ctrl_c_says_where_it_stopped(acme, capsys):
    acme("raise KeyboardInterrupt")
    code, _, err = fails(capsys, "acme", "-k", "runs")
    assert code == 130
    assert "stopped in acme.mean_norm::runs, 0 of 1 checks done" in err
    assert err.rstrip().endswith("interrupted")


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("piar", "no plugin has the namespace 'piar'; did you mean 'pair'?"),
        ("nearfar-pair", "its namespace is 'pair'"),
        ("./absent", "absent: there is no pyproject.toml"),
    ],
)
def test_a_plugin_nobody_has_is_one_sentence(capsys, plugin, message):
    code, out, err = fails(capsys, plugin)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_a_plugin_that_does_not_load_says_why(install, capsys):
    install("acme-losses", "acme", "import acme_no_such_module", requires="nearfar")
    default_registry.cache_clear()
    code, _, err = fails(capsys, "acme")
    default_registry.cache_clear()
    assert code == 2
    assert "the plugin 'acme' is failed: ModuleNotFoundError: No module named 'acme_no_such_module'" in err


def command(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "nearfar", "check-plugin", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


PROJECT = """
[project]
name = "zeta-losses"
version = "1.0.0"
dependencies = ["nearfar>=0.1"]

[project.entry-points.nearfar]
zeta = "zeta_losses.plugin"
"""


def test_a_folder_is_checked_without_being_installed_and_its_failures_can_be_reproduced(tmp_path):
    source = tmp_path / "zeta" / "src" / "zeta_losses"
    source.mkdir(parents=True)
    (source / "__init__.py").touch()
    plugin = PLUGIN.replace("acme_parts", "zeta_losses.parts").replace("{more}", "")
    (source / "plugin.py").write_text(plugin, encoding="utf-8")
    (source / "parts.py").write_text(PARTS.replace("{extra}", "batch.embeddings[7]"), encoding="utf-8")
    (tmp_path / "zeta" / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    done = command("./zeta", "-k", "gradient", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "zeta (zeta-losses 1.0.0): " in done.stdout
    begin = done.stdout.index("# To reproduce zeta.mean_norm::gradient")
    printed = done.stdout[begin : done.stdout.index("\n\n", done.stdout.index("# nearfar check-plugin", begin))]
    assert "-k zeta.mean_norm::gradient" in printed
    assert "check-plugin ./zeta" in printed
    again = subprocess.run([sys.executable, "-c", printed], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr.rstrip().splitlines()[-1] in done.stdout
    assert "IndexError" in again.stderr


def test_a_terminal_sees_how_far_it_is_and_a_file_does_not(tmp_path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    run = [sys.executable, "-m", "nearfar", "check-plugin", "proxy", "-k", "ring::runs"]
    done = subprocess.run(run, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=300)
    os.close(theirs)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    assert "0/1 proxy.ring::runs" in seen
    assert seen.endswith("\r\x1b[K")
    assert "\x1b" not in done.stdout
    assert "0/1" not in done.stdout


@pytest.mark.parametrize("where", ["before", "after"])
def test_traceback_shows_where_in_the_author_s_code_an_exception_was_raised(acme, where):
    acme("self._helper()\n\n    def _helper(self):\n        raise KeyError('no such column')")
    arguments = ["check-plugin", "acme", "-k", "acme.mean_norm::runs"]
    arguments.insert(0 if where == "before" else 1, "--traceback")
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 1
    shown = done.stdout[done.stdout.index("Traceback (most recent call last):") : done.stdout.index("The law:")]
    assert "self._helper()" in shown
    assert shown.rstrip().endswith("KeyError: 'no such column'")
    assert "nearfar/testing" not in shown  # what called it is of no interest
    assert "Traceback" not in check("acme", "-k", "acme.mean_norm::runs").stdout


# ---- the tests of a plugin


TESTS = """
from nearfar.testing import parts

@parts({arguments})
def test_conformance(check):
    check()
"""


def pytest_run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_two_lines_hold_a_plugin_to_the_laws_and_k_selects(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS.replace("{arguments}", '"proxy"'), encoding="utf-8")
    done = pytest_run(tmp_path, "-v", "-k", "center and (memory or gradient)")
    assert done.returncode == 0, done.stdout
    assert "test_conformance[proxy.center::memory]" in done.stdout
    assert "test_conformance[proxy.center::gradient]" in done.stdout
    assert "proxy_nca" not in done.stdout


def test_pytest_anywhere_loads_nothing_of_it(tmp_path):
    points = [point for point in metadata.entry_points(group="pytest11") if "nearfar" in point.value]
    assert points == []
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n    assert not [name for name in sys.modules if name.startswith('nearfar')]\n",
        encoding="utf-8",
    )
    done = pytest_run(tmp_path, "-q")
    assert done.returncode == 0, done.stdout
