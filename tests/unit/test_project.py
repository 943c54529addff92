"""A plugin is found by its namespace, or by the folder it is written in, which need not be installed."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nearfar.errors import PluginError
from nearfar.registry import default_registry
from nearfar.testing import find_plugin

PYPROJECT = """
[project]
name = "zeta-losses"
version = "3.1"
dependencies = ["nearfar>=0.1"]

[project.entry-points.nearfar]
zeta = "{module}"
"""

MODULE = """
from nearfar import LossSpec, hookimpl

@hookimpl
def nearfar_losses():
    return [LossSpec(name="last", target="nowhere:Class", summary="{summary}")]
"""


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    modules = set(sys.modules)
    default_registry.cache_clear()
    yield
    default_registry.cache_clear()
    for name in set(sys.modules) - modules:
        if name.startswith("zeta"):
            del sys.modules[name]


@pytest.fixture
def project(tmp_path):
    def write(pyproject=PYPROJECT, *, module="zeta_losses", source="src", summary="The last."):
        folder = tmp_path / "project"
        (folder / source).mkdir(parents=True, exist_ok=True)
        (folder / source / f"{module}.py").write_text(MODULE.format(summary=summary), encoding="utf-8")
        (folder / "pyproject.toml").write_text(pyproject.replace("{module}", module), encoding="utf-8")
        return folder

    return write


def plugin_of(registry, namespace):
    return next(p for p in registry.plugins if p.namespace == namespace)


def test_a_namespace_is_what_is_installed():
    registry, namespace = find_plugin("pair")
    assert registry is default_registry()
    assert namespace == "pair"


@pytest.mark.parametrize("source", ["src", "."])
def test_a_folder_is_as_good_as_installed(project, source):
    registry, namespace = find_plugin(str(project(source=source)))
    assert namespace == "zeta"
    plugin = plugin_of(registry, "zeta")
    assert (plugin.status, plugin.reason) == ("active", "")
    assert plugin.provider == "zeta-losses 3.1"
    assert registry is default_registry()  # names in a recipe are found as well
    assert metadata.requires("zeta-losses") == ["nearfar>=0.1"]
    assert plugin_of(registry, "pair").status == "active"


def test_a_requirement_that_is_not_met_is_told_as_of_what_is_installed(project):
    registry, _ = find_plugin(str(project(PYPROJECT.replace(">=0.1", ">=42"))))
    assert plugin_of(registry, "zeta").status == "incompatible"


def test_a_version_that_is_made_when_it_is_built_is_left_open(project):
    registry, _ = find_plugin(str(project(PYPROJECT.replace('version = "3.1"', 'dynamic = ["version"]'))))
    assert plugin_of(registry, "zeta").provider == "zeta-losses"


def test_the_folder_wins_over_what_is_installed_under_its_name(project, install):
    module = install("zeta-losses", "zeta", MODULE.format(summary="An older one."), module="zeta_losses")
    registry, _ = find_plugin(str(project(module=module)))
    (plugin,) = (p for p in registry.plugins if p.namespace == "zeta")
    assert plugin.version == "3.1"
    assert plugin.specs[0].summary == "The last."


def test_what_was_loaded_from_elsewhere_is_not_checked_in_its_place(project, install):
    install("zeta-losses", "zeta", MODULE.format(summary="An older one."), module="zeta_losses")
    importlib.import_module("zeta_losses")
    with pytest.raises(PluginError, match=r"zeta_losses was already loaded from .*; check .* in a process of its own"):
        find_plugin(str(project()))


def test_a_folder_of_the_name_of_a_namespace_is_not_in_its_way(tmp_path, monkeypatch):
    (tmp_path / "pair").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_plugin("pair")[1] == "pair"


def test_the_folder_one_is_in(project, monkeypatch):
    monkeypatch.chdir(project())
    assert find_plugin(".")[1] == "zeta"


@pytest.mark.parametrize(
    ("pyproject", "message"),
    [
        pytest.param("[project", "it cannot be read", id="no TOML"),
        pytest.param("[tool.other]\n", "it has no [project] with a name", id="no project"),
        pytest.param("project = 3\n", "it has no [project] with a name", id="project is no table"),
        pytest.param('[project]\nname = "a"\n', "write [project.entry-points.nearfar]", id="no entry point"),
        pytest.param(PYPROJECT + 'eta = "eta"\n', "it has 2 plugins, zeta, eta; install it", id="two"),
    ],
)
def test_a_folder_without_a_plugin_is_told_what_is_missing(project, pyproject, message):
    with pytest.raises(PluginError) as caught:
        find_plugin(str(project(pyproject)))
    assert message in str(caught.value)
    assert "pyproject.toml" in str(caught.value)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(PluginError, match=r"there is no pyproject\.toml; give the folder of a plugin"):
        find_plugin(f"{tmp_path}/absent")
    with pytest.raises(PluginError, match=r"there is no pyproject\.toml"):
        find_plugin(str(Path(tmp_path)))


def test_bytes_that_are_no_text(project):
    folder = project()
    (folder / "pyproject.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PluginError, match="it cannot be read"):
        find_plugin(str(folder))
