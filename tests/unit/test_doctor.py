"""``nearfar doctor``: what is wrong is found, said, and told how to mend; nothing that is wrong ends the doctor."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from nearfar import __version__, doctor
from nearfar.cli import cli
from nearfar.discovery import Plugin, discover
from nearfar.doctor import (
    Finding,
    dependencies,
    examine,
    extras,
    modules_of,
    packages,
    parts,
    plugins,
    selection,
    their_requirements,
    usable_cores,
)
from nearfar.probe import look
from nearfar.spec import LossSpec


def plugin(namespace: str = "acme", **fields: object) -> Plugin:
    about = {"distribution": f"{namespace}-losses", "version": "1.2", "module": "m"} | fields
    return Plugin(namespace=namespace, **about)


def wrong(findings: object) -> list[tuple[str, str]]:
    """What is wrong, and what mends it."""
    return [(finding.says, finding.mend) for finding in findings if finding.level == "wrong"]


# ---- plugins


@pytest.mark.parametrize(
    ("status", "level", "mend"),
    [
        ("active", "ok", ""),
        ("blocked", "note", ""),
        ("failed", "wrong", "pip install --upgrade acme-losses, or export NEARFAR_BLOCK=acme-losses"),
        ("incompatible", "wrong", "pip install --upgrade nearfar acme-losses, or export NEARFAR_BLOCK=acme-losses"),
        ("conflict", "wrong", "pip uninstall acme-losses, or export NEARFAR_BLOCK=acme-losses"),
    ],
)
def test_every_plugin_is_told_with_its_status_and_what_mends_it(status, level, mend):
    (finding,) = plugins([plugin(status=status, reason="because of it")])
    assert (finding.level, finding.mend) == (level, mend)
    assert "acme (acme-losses 1.2)" in finding.says
    assert ("because of it" in finding.says) == (status != "active")


def test_leaving_a_broken_plugin_out_as_it_says_mends_it(install, monkeypatch):
    install("acme-losses", "acme", "raise ImportError('no')")
    (finding,) = [f for f in plugins(discover()) if f.level == "wrong"]
    name, _, value = finding.mend.rpartition(" ")[2].partition("=")
    monkeypatch.setenv(name, value)
    assert wrong(plugins(discover())) == []


def test_a_first_party_plugin_of_another_version_is_wrong_whatever_its_status():
    own = plugin("margin", distribution="nearfar-margin", version="0.0.9")
    for status in ("active", "incompatible"):
        ((says, mend),) = wrong(plugins([dataclasses.replace(own, status=status)]))
        assert "margin (nearfar-margin 0.0.9) is of another version" in says
        assert mend == f"pip install 'nearfar-margin=={__version__}'"
    assert wrong(plugins([dataclasses.replace(own, version=__version__)])) == []
    assert wrong(plugins([plugin("acme", version="0.0.9")])) == []


def test_strict_mode_is_told_where_it_makes_every_command_fail(monkeypatch):
    monkeypatch.setenv("NEARFAR_STRICT", "1")
    assert wrong(plugins([plugin()])) == []
    ((says, mend),) = wrong(plugins([plugin(), plugin("other", status="blocked", reason="by name")]))
    assert "(other)" in says
    assert mend == "unset NEARFAR_STRICT"


@pytest.mark.parametrize(
    ("environ", "no_plugin", "where", "name"),
    [
        ({"NEARFAR_BLOCK": "margin acmee"}, (), "NEARFAR_BLOCK", "acmee"),
        ({"NEARFAR_PLUGINS": "acme,Acme_Loses"}, (), "NEARFAR_PLUGINS", "Acme_Loses"),
        ({"NEARFAR_BLOCK": "acmee"}, ("acmee",), "--no-plugin", "acmee"),
    ],
)
def test_a_name_that_no_plugin_has_is_told_by_where_it_was_said(environ, no_plugin, where, name):
    known = [plugin(), plugin("margin", distribution="nearfar-margin")]
    ((area, says),) = [(f.area, f.says) for f in selection(known, environ, no_plugin)]
    assert area == where
    assert f"no plugin is called {name!r}" in says


def test_names_of_namespaces_and_distributions_are_both_known_however_they_are_written():
    environ = {"NEARFAR_BLOCK": "acme, Acme.Losses", "NEARFAR_PLUGINS": "acme_losses"}
    assert list(selection([plugin()], environ, ("acme",))) == []


def test_a_name_that_is_close_is_suggested():
    (finding,) = selection([plugin()], {"NEARFAR_BLOCK": "acmee"})
    assert finding.mend == "write 'acme'"


# ---- parts


_serial = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch) -> Callable[[str], str]:
    """Write a module that nothing may import; returns its name, a new one each time, since sources are read once."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source: str) -> str:
        name = f"acme_parts_{next(_serial)}"
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('imported')\n{source}", encoding="utf-8")
        return name

    return write


def with_target(target: str, **fields: object) -> Plugin:
    return plugin(specs=(LossSpec(name="spread", target=target, summary="s", **fields),))


@pytest.mark.parametrize("target", ["{}:Spraed", "{}.deeper:Spread", "nowhere_{}:Spread"])
def test_a_target_that_does_not_exist_is_found_without_an_import(module, target):
    target = target.format(module("class Spread: ..."))
    ((says, mend),) = wrong(parts([with_target(target)], {}))
    place, _, name = target.partition(":")
    assert says == f"acme.spread should be {name} of {place}, and there is none"
    assert mend == "pip install --upgrade --force-reinstall acme-losses"


@pytest.mark.parametrize(
    "source",
    [
        "class Spread: ...",
        "def Spread(): ...",
        "Spread = make()",
        "from json.decoder import JSONDecoder as Spread",
        "from math import *",
        "def __getattr__(name): ...",
    ],
)
def test_a_target_that_exists_or_may_exist_is_no_finding(module, source):
    assert list(parts([with_target(f"{module(source)}:Spread")], {})) == []


def test_a_target_that_is_imported_from_where_it_is_not_does_not_exist(module):
    facade = module(f"from {module('class Spraed: ...')} import Spread")
    assert len(wrong(parts([with_target(f"{facade}:Spread")], {}))) == 1


def test_targets_of_compiled_modules_are_given_the_benefit_of_the_doubt():
    assert list(parts([with_target("math:Spread")], {})) == []


def test_a_definition_is_looked_for_too(module):
    name = module("class Spread: ...")
    ((says, _),) = wrong(parts([with_target(f"{name}:Spread", definition=f"{name}:plain")], {}))
    assert f"should be plain of {name}" in says


def test_a_part_whose_optional_package_is_not_installed_is_a_note_and_its_target_no_matter():
    spec = LossSpec(name="spread", target="acme_extras.x:Spread", summary="s", requires="acme-extras")
    (finding,) = parts([plugin(specs=(spec,))], {})
    assert (finding.level, finding.mend) == ("note", "pip install acme-extras")
    assert finding.says == "acme.spread needs acme-extras, which is not installed"


def test_a_part_whose_module_cannot_be_imported_is_told_with_what_its_import_raised(install, tmp_path):
    source = """
        from nearfar import LossSpec, hookimpl

        @hookimpl
        def nearfar_losses():
            names = {"here": "acme_fine:Here", "broken": "acme_torn:Broken", "gone": "acme_torn:Gone"}
            return [LossSpec(name=name, target=target, summary="s") for name, target in names.items()]
    """
    install("acme-losses", "acme", source)
    (tmp_path / "site" / "acme_fine.py").write_text("class Here: ...", encoding="utf-8")
    (tmp_path / "site" / "acme_torn.py").write_text("import acme_nowhere\nclass Broken: ...", encoding="utf-8")
    acme = [plugin for plugin in discover() if plugin.namespace == "acme"]
    assert modules_of(acme) == ["acme_fine", "acme_torn"]
    broken = {name: row["error"] for name, row in look(modules_of(acme)).items() if row.get("error")}
    assert wrong(parts(acme, broken)) == [
        (
            "acme.gone should be Gone of acme_torn, and there is none",
            "pip install --upgrade --force-reinstall acme-losses",
        ),
        (
            "acme.broken cannot be imported from acme_torn: ModuleNotFoundError: No module named 'acme_nowhere'",
            "pip install --upgrade --force-reinstall acme-losses",
        ),
    ]


def test_all_installed_parts_have_their_classes():
    assert wrong(parts(discover(), {})) == []


# ---- what is installed

REQUIRES = (
    "torch>=2.11",
    "click>=8.1",
    'tomli>=2; python_version < "3"',
    'lightning>=2.4; extra == "train"',
    'pydantic>=2.7; extra == "train"',
    'matplotlib>=3.8; extra == "plot"',
    'matplotlib>=3.8; extra == "all"',
)


def versions(**found: str) -> Callable[[str], str]:
    return lambda name: found.get(name, "")


def test_a_required_package_that_is_missing_or_too_old_is_wrong():
    found = wrong(dependencies(REQUIRES, versions(torch="2.4.0+cu121")))
    assert found == [
        ("torch 2.4.0+cu121 is not >=2.11", "pip install 'torch>=2.11'"),
        ("click is not installed", "pip install 'click>=8.1'"),
    ]
    assert wrong(dependencies(REQUIRES, versions(torch="2.12.0.dev1", click="8.1"))) == []


@pytest.mark.parametrize(
    ("found", "level", "says"),
    [
        ({"lightning": "2.5", "pydantic": "2.7"}, "ok", "train: complete"),
        ({"lightning": "2.5"}, "note", "train: pydantic is not installed"),
        ({"lightning": "1.9", "pydantic": "2.7"}, "wrong", "train: lightning 1.9 is not >=2.4"),
    ],
)
def test_an_extra_is_complete_or_not_wanted_or_wrong(found, level, says):
    told = {finding.says.partition(":")[0]: finding for finding in extras(REQUIRES, versions(**found))}
    assert set(told) == {"train", "plot"}
    assert (told["train"].level, told["train"].says) == (level, says)
    assert told["train"].mend == ("" if level == "ok" else "pip install 'nearfar[train]'")


# ---- torch, in a process that may die of it

FINE = {
    "torch": """
        from types import SimpleNamespace as Space
        class Ones:
            def __init__(self, *_): ...
            def sum(self): return self
            def item(self): return 2.0
        ones = Ones
        def get_num_threads(): return 64
        version = Space(cuda="13.2")
        backends = Space(mps=Space(is_available=lambda: False))
        cuda = Space(
            is_available=lambda: True, device_count=lambda: 2, get_device_name=lambda index: "H100"
        )
    """,
    "torchvision": "print('a banner without an end', end='')",
    "timm": "",
    "pytorch_metric_learning": "",
}


@pytest.fixture
def packages_are(tmp_path, monkeypatch) -> Callable[..., None]:
    """Put modules in front of those that are installed, which are imported by nobody then."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**sources: str) -> None:
        for name, source in (FINE | sources).items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")

    return write


def test_what_torch_says_of_the_machine_is_told(packages_are, monkeypatch):
    packages_are()
    monkeypatch.setattr(doctor, "usable_cores", lambda: 4)
    told = list(packages(look()))
    assert wrong(told) == []
    assert [f.area for f in told] == ["torch", "device", "threads", "torchvision", "timm", "pytorch-metric-learning"]
    assert told[1].says == "cuda: 2 × H100; torch is built for CUDA 13.2"
    assert (told[2].level, told[2].mend) == ("note", "export OMP_NUM_THREADS=4")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise ImportError('libcudart.so.13: cannot\\nopen')", "ImportError: libcudart.so.13: cannot open"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os.abort()", "its import ended the process with SIGABRT"),
        ("import os; os._exit(7)", "its import ended the process with the exit code 7"),
        ("ones = None", "TypeError: 'NoneType' object is not callable"),
    ],
)
def test_a_torch_that_breaks_in_any_way_is_a_finding(packages_are, source, says):
    packages_are(torch=source)
    ((told, mend),) = wrong(packages(look()))
    assert told.endswith(f"cannot be imported: {says}")
    assert mend == "pip install --upgrade --force-reinstall torch"


def test_a_torch_that_never_ends_its_import_is_a_finding(packages_are):
    packages_are(torch="import time; time.sleep(600)")
    ((told, _),) = wrong(packages(look(timeout=2)))
    assert told.endswith("its import did not end within 2 seconds")


def test_a_torchvision_made_for_another_torch_is_told_together_with_it(packages_are, monkeypatch):
    packages_are(torchvision="raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["numpy", "torch==2.4.0"])
    monkeypatch.setattr(doctor, "installed", lambda name: "2.15.0")
    told = list(packages(look()))
    ((says, mend),) = wrong(told)
    assert "RuntimeError: operator torchvision::nms does not exist" in says
    assert "it is made for torch==2.4.0, but torch 2.15.0 is installed" in says
    assert mend == "pip install --upgrade torch torchvision"
    assert told[-1].area == "pytorch-metric-learning", "those after it are still looked at"


def test_a_warning_about_the_gpu_is_wrong(packages_are):
    warns = "cuda.is_available = lambda: __import__('warnings').warn('CUDA initialization: driver too old') or False"
    packages_are(torch=f"{textwrap.dedent(FINE['torch'])}\n{warns}\n")
    told = list(packages(look()))
    ((says, mend),) = wrong(told)
    assert says == "torch cannot use the GPU: CUDA initialization: driver too old"
    assert "driver" in mend
    assert told[2].says == "cpu, no GPU; torch is built for CUDA 13.2"


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 8), (None, 8)]
)
def test_a_container_grants_no_more_cores_than_its_quota(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota, encoding="ascii")
    assert usable_cores(tmp_path / "cpu.max") == cores


def test_nothing_is_wrong_where_these_tests_run():
    found = doctor.examine()
    assert wrong(found) == []
    assert {"python", "nearfar", "torch", "device", "threads", "timm", "plugin"} <= {finding.area for finding in found}


# ---- the command


def run(*arguments: str, findings: list[Finding], monkeypatch: pytest.MonkeyPatch):
    asked: list[object] = []
    monkeypatch.setattr("nearfar.cli.doctor.examine", lambda **options: asked.append(options) or findings)
    done = CliRunner().invoke(cli, arguments)
    return done.exit_code, done.output, asked


FINDINGS = [
    Finding(area="torch", says="2.15.0"),
    Finding(area="extra", says="plot: matplotlib is not installed", level="note", mend="pip install 'nearfar[plot]'"),
]
WRONG = Finding(area="plugin", says="acme is failed: no", level="wrong", mend="pip install --upgrade acme")


def test_the_exit_code_says_whether_something_is_wrong(monkeypatch):
    code, out, _ = run("doctor", findings=FINDINGS, monkeypatch=monkeypatch)
    assert code == 0
    assert out.splitlines() == [
        "ok     torch  2.15.0",
        "note   extra  plot: matplotlib is not installed",
        "              mend: pip install 'nearfar[plot]'",
        "",
        "nothing is wrong",
    ]
    code, out, _ = run("doctor", findings=[*FINDINGS, WRONG], monkeypatch=monkeypatch)
    assert (code, out.splitlines()[-1]) == (1, "one thing is wrong")
    code, out, _ = run("doctor", findings=[WRONG, WRONG], monkeypatch=monkeypatch)
    assert (code, out.splitlines()[-1]) == (1, "2 things are wrong")


def test_as_json_every_finding_is_a_row(monkeypatch):
    code, out, _ = run("doctor", "--json", findings=[*FINDINGS, WRONG], monkeypatch=monkeypatch)
    data = json.loads(out)
    assert (code, data["ok"], len(data["findings"])) == (1, False, 3)
    assert data["findings"][2] == {"area": "plugin", "says": WRONG.says, "level": "wrong", "mend": WRONG.mend}


def test_names_given_to_no_plugin_reach_the_doctor(monkeypatch):
    monkeypatch.setenv("NEARFAR_BLOCK", "")
    _, _, asked = run("--no-plugin", "acmee", "doctor", findings=FINDINGS, monkeypatch=monkeypatch)
    assert asked == [{"no_plugin": ("acmee",)}]


def test_the_doctor_loads_no_torch_itself_and_works_where_strict_mode_stops_the_others(install, tmp_path):
    install("broken-losses", "broken", "raise ImportError('no')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import nearfar.doctor\n"
        "nearfar.doctor.look = lambda *_: {}\n"
        "from nearfar.cli import main\n"
        "try:\n    main(['doctor'])\nexcept SystemExit as end:\n    print('code', end.code)\n"
        "assert not {'torch', 'numpy', 'rich', 'timm'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "NEARFAR_STRICT": "1"},
        cwd=Path(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "broken (broken-losses 1.0) is failed: ImportError: no" in done.stdout
    assert "mend: unset NEARFAR_STRICT" in done.stdout
    assert done.stdout.splitlines()[-1] == "code 1"


# ---- what plugins require


def requiring(install, requires):
    install("acme-losses", "acme", "", requires=f"nearfar\nRequires-Dist: {requires}")
    return [plugin(distribution="acme-losses")]


@pytest.mark.parametrize(
    ("requires", "found", "says"),
    [
        ("scipy>=1.10", {}, "acme (acme-losses) requires scipy>=1.10: scipy is not installed"),
        ("scipy>=1.10", {"scipy": "1.9"}, "acme (acme-losses) requires scipy>=1.10: scipy 1.9 is not >=1.10"),
    ],
)
def test_what_a_plugin_requires_and_does_not_find_is_wrong(install, requires, found, says):
    (finding,) = their_requirements(requiring(install, requires), versions(**found))
    assert (finding.level, finding.says, finding.mend) == ("wrong", says, "pip install 'scipy>=1.10'")


@pytest.mark.parametrize(
    "requires", ["scipy<2", "nearfar>=99", "scipy>=3; extra == 'fast'", "pywin32; os_name == 'nt'"]
)
def test_what_a_plugin_finds_or_need_not_find_here_is_no_finding(install, requires):
    assert list(their_requirements(requiring(install, requires), versions(scipy="1.9"))) == []


def test_of_plugins_that_are_left_out_or_of_nearfar_itself_nothing_is_required(install):
    assert list(their_requirements([plugin(distribution="acme-losses", status="blocked")], versions())) == []
    assert list(their_requirements([plugin(namespace="pml", distribution="nearfar")], versions())) == []


def test_the_doctor_asks_after_what_plugins_require(install):
    requiring(install, "acme-no-such-package>=2")
    assert ("plugin", "pip install 'acme-no-such-package>=2'") in [(f.area, f.mend) for f in examine()]
