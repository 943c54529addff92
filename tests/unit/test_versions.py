"""Core and plugins are released in lockstep."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import nearfar

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_there_are_four_first_party_plugins():
    assert [path.name for path in PLUGINS] == ["nearfar-iou", "nearfar-margin", "nearfar-pair", "nearfar-proxy"]


def test_the_core_says_its_version_once_in_each_place():
    assert project(ROOT)["version"] == nearfar.__version__ == metadata.version("nearfar")


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_has_the_version_of_the_core_and_requires_it(folder):
    plugin, version = project(folder), project(ROOT)["version"]
    assert plugin["version"] == version
    assert f"nearfar=={version}" in plugin["dependencies"]
    everything = [re.sub(r"\[.*\]", "", each) for each in project(ROOT)["optional-dependencies"]["all"]]
    assert f"{plugin['name']}=={version}" in everything
    assert metadata.version(plugin["name"]) == version


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda path: path.name)
def test_a_first_party_namespace_is_reserved_for_its_distribution(folder):
    from nearfar.discovery import RESERVED

    plugin = project(folder)
    (namespace,) = plugin["entry-points"]["nearfar"]
    assert RESERVED[namespace] == plugin["name"] == folder.name
